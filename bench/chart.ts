/** Draws figures of several contenders as bars. */

/** One thing that was measured, and what each contender came to. */
export interface Panel {
  title: string;
  unit: string;
  bars: { name: string; figure: number; isOurs: boolean }[];
}

const WIDTH = 720;
const MARGIN = 16;
const HEAD = 64;
const TITLE = 30;
const BAR = 22;
const GAP = 18;
/** Where the bars begin, and how long the longest is. */
const LEFT = 170;
const SCALE = 420;

/** An SVG with a ground of its own, for light and dark pages alike. */
export function drawChart(
  heading: string,
  machine: string,
  panels: Panel[],
): string {
  let y = HEAD;
  const drawn = panels.map((panel) => {
    const text = drawPanel(panel, y);
    y += TITLE + panel.bars.length * BAR + GAP;
    return text;
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${y}" viewBox="0 0 ${WIDTH} ${y}" font-family="sans-serif" font-size="14" fill="#e6edf3">
<rect width="100%" height="100%" rx="6" fill="#0d1117"/>
<text x="${MARGIN}" y="28" font-size="17">${heading}</text>
<text x="${MARGIN}" y="50" fill="#9198a1">${machine}</text>
${drawn.join("\n")}
</svg>
`;
}

function drawPanel({ title, unit, bars }: Panel, y: number): string {
  const longest = Math.max(...bars.map(({ figure }) => figure));
  const drawn = bars.map(({ name, figure, isOurs }, i) => {
    const top = y + TITLE + i * BAR;
    const width = Math.max(1, figure / longest * SCALE);
    const text = `${figure.toFixed(figure < 10 ? 1 : 0)} ${unit}`;
    return `<text x="${MARGIN}" y="${top + 14}">${name}</text>
<rect x="${LEFT}" y="${top}" width="${width.toFixed(0)}" height="${
      BAR - 4
    }" rx="3" fill="${isOurs ? "#3fb950" : "#6e7681"}"/>
<text x="${LEFT + Math.round(width) + 8}" y="${top + 14}">${text}</text>`;
  });
  return `<text x="${MARGIN}" y="${y + 16}" font-weight="bold">${title}</text>
${drawn.join("\n")}`;
}
