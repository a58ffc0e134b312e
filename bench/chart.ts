/** Draws the table as bars: how near each ratio comes to its aim. */

/** A line of the table: ours beside another, and their ratio. */
export interface Row {
  what: string;
  unit: string;
  ours: number;
  other: number;
  ratio: number;
  /** What is aimed at: `>= 0.45` or `<= 2.5`. */
  aim: string;
  /** What CI holds: far enough from the aim for a noisy machine. */
  bound?: string;
}

const WIDTH = 720;
const ROW_HEIGHT = 44;
const LEFT = 300;
const SCALE = 240;

/** An SVG that reads on light and dark pages alike. */
export function drawChart(rows: Row[], machine: string): string {
  const height = 70 + rows.length * ROW_HEIGHT;
  const bars = rows.map((row, i) => drawRow(row, 60 + i * ROW_HEIGHT));
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}" font-family="sans-serif" font-size="13">
<rect width="100%" height="100%" rx="6" fill="#0d1117"/>
<text x="16" y="26" fill="#e6edf3" font-size="15">innerlock beside plain TLS and WebCrypto</text>
<text x="16" y="44" fill="#8b949e">${machine}; the line is what is aimed at, a longer bar is better</text>
${bars.join("\n")}
<line x1="${LEFT + SCALE}" y1="54" x2="${LEFT + SCALE}" y2="${
    height - 16
  }" stroke="#8b949e" stroke-dasharray="3 3"/>
</svg>
`;
}

function drawRow({ what, ours, other, unit, ratio, aim }: Row, y: number) {
  const [comparison, limit] = aim.split(" ");
  const goal = Number(limit);
  // 1 is the aim, whichever way is better.
  const reached = comparison === ">=" ? ratio / goal : goal / ratio;
  const width = Math.min(reached, 1.6) * SCALE;
  const colour = reached >= 1 ? "#3fb950" : "#d29922";
  const figures = `${round(ours)} / ${round(other)} ${unit}`;
  return `<text x="16" y="${y + 14}" fill="#e6edf3">${what}</text>
<text x="16" y="${y + 30}" fill="#8b949e" font-size="11">${figures}, ratio ${
    ratio.toFixed(2)
  }, aim ${aim.replace("<", "&lt;").replace(">", "&gt;")}</text>
<rect x="${LEFT}" y="${y + 4}" width="${
    width.toFixed(0)
  }" height="22" rx="3" fill="${colour}"/>`;
}

function round(value: number): string {
  return value < 100
    ? value.toFixed(1)
    : Math.round(value).toLocaleString("en");
}
