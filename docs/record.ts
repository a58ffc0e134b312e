/**
 * Draws docs/demo.svg from a real run of the demo at a terminal.
 *
 * ```sh
 * deno run --allow-run=script --allow-write=docs docs/record.ts
 * ```
 *
 * @module
 */

const LINE_HEIGHT = 18;
const MARGIN = 20;
const CHARACTER = 8.43;

/** The demo's colours, by their ANSI codes. */
const STYLES: Record<string, string> = {
  "1": "font-weight:bold",
  "2": "opacity:.6",
  "31": "fill:#ff7b72",
  "32": "fill:#7ee787",
};

const { code, stdout } = await new Deno.Command("script", {
  args: ["-qec", `${Deno.execPath()} task --quiet demo`, "/dev/null"],
}).output();
if (code !== 0) throw new Error(`The demo failed: ${code}`);

const output = new TextDecoder().decode(stdout).replaceAll("\r", "").trimEnd();
const lines = ["\x1b[2m$\x1b[22m innerlock demo"]
  .concat(output.split("\n"));
await Deno.writeTextFile(new URL("demo.svg", import.meta.url), draw(lines));

function draw(lines: string[]): string {
  const columns = Math.max(...lines.map((line) => [...plain(line)].length));
  const width = Math.ceil(columns * CHARACTER) + 2 * MARGIN;
  const height = lines.length * LINE_HEIGHT + 2 * MARGIN;
  const rows = lines.map((line, i) =>
    `<text x="${MARGIN}" y="${MARGIN + LINE_HEIGHT * i + 14}">` +
    `${spans(line)}</text>`
  );
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ` +
    `${height}" role="img" aria-label="A run of the demo">
<style>text{font:14px ui-monospace,Menlo,Consolas,monospace;fill:#e6edf3;` +
    `white-space:pre}</style>
<rect width="100%" height="100%" rx="8" fill="#0d1117"/>
${rows.join("\n")}
</svg>
`;
}

/** Each `ESC [ n m` begins a span or, from 22 to 39, ends it. */
function spans(line: string): string {
  // deno-lint-ignore no-control-regex
  return escape(line).replaceAll(/\x1b\[(\d+)m/g, (_, code: string) => {
    const style = STYLES[code];
    return style ? `<tspan style="${style}">` : "</tspan>";
  });
}

function plain(line: string): string {
  // deno-lint-ignore no-control-regex
  return line.replaceAll(/\x1b\[\d+m/g, "");
}

function escape(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
}
