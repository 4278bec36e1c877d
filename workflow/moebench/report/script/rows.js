// The rows of a drawn figure's own data (the CSV that the page carries): marks that are not cells show them.

/** Rows of a CSV as objects; numbers are parsed, empty values are null. */
function parseCsv(text) {
  const lines = [[""]];
  for (const [, quoted, plain, end] of text.matchAll(/"((?:[^"]|"")*)"|([^",\n]+)|([,\n])/g)) {
    const line = lines[lines.length - 1];
    if (end === ",") line.push("");
    else if (end) lines.push([""]);
    else line[line.length - 1] += plain ?? quoted.replaceAll('""', '"');
  }
  const [heads, ...rows] = lines.filter(line => line.length > 1 || line[0] !== "");
  const read = text => (text === "" ? null : isNaN(text) ? text : Number(text));
  return rows.map(row => Object.fromEntries(heads.map((head, n) => [head, read(row[n])])));
}

const READ = new Map();

/** The data of a figure; none if they are too large for the page. */
function rowsOf(figure) {
  const link = figure.querySelector("figcaption a[download]");
  if (link && !READ.has(figure.id)) {
    const href = link.getAttribute("href");
    READ.set(figure.id, parseCsv(decodeURIComponent(href.slice(href.indexOf(",") + 1))));
  }
  return READ.get(figure.id) || [];
}

/** Meaning and value of a mark that is not a cell; for several rows, their sum. */
function toldOfRows({ rows, metric, tells }) {
  const first = rows[0], unit = DATA.names[metric][1];
  const words = v => String(plain(v)).replaceAll("_", " ");
  const named = tells.filter(name => first[name] !== null && first[name] !== undefined)
    .map(name => (["model_title", "component", "by", "variant"].includes(name) ? words(first[name]) : `${axisLabel(name)} ${words(first[name])}`));
  const values = rows.map(row => row[metric]).filter(v => v !== null);
  const sum = values.reduce((a, b) => a + b, 0);
  const said = values.length ? `${heading(metric)}: ${number(sum)}${ends(first, metric)}${unit ? ` ${unit}` : ""}` : DATA.words[first.status] || "no value";
  return [named.join(", "), said];
}

/** The interval of a value, if its row has one. */
function ends(row, metric) {
  const low = row[`${metric}_low`], high = row[`${metric}_high`];
  return typeof low === "number" && low !== high ? ` (${number(low)} to ${number(high)})` : "";
}
