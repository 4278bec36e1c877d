// The cells of the study, written by report/cells.py, and the formatting of values.

const DATA = JSON.parse(document.getElementById("cells-data").textContent);
const COUNT = DATA.ids.length;
const PLACE = new Map(DATA.ids.map((id, i) => [id, i]));

/** Value of a column for cell number i; null if there is none. */
function value(name, i) {
  const column = DATA.columns[name];
  if (!column) return null;
  if (Array.isArray(column)) return column[i];
  const at = column.at[i];
  return at === null ? null : column.levels[at];
}

const heading = name => DATA.names[name][0];
const axisLabel = name => (DATA.names[name][1] ? `${DATA.names[name][0]} (${DATA.names[name][1]})` : DATA.names[name][0]);
const isOk = i => value("status", i) === "ok";
const statusWords = i => DATA.words[value("status", i)];

/** A number in the format of the page: four significant digits, thousands separated. */
function number(v) {
  if (v === null || v === undefined) return "";
  if (typeof v !== "number") return String(v);
  if (v === 0) return "0";
  if (Math.abs(v) < 1e-4) return v.toExponential(3).replace(/e-(\d)$/, "e-0$1");
  const places = Math.max(0, 3 - Math.floor(Math.log10(Math.abs(v))));
  return v.toLocaleString("en-US", { minimumFractionDigits: places, maximumFractionDigits: places });
}

/** A knob's value; whole numbers are unchanged. */
function plain(v) {
  if (v === null || v === undefined) return "none";
  if (typeof v === "boolean") return v ? "yes" : "no";
  return typeof v === "number" && !Number.isInteger(v) ? number(v) : String(v);
}

function withInterval(metric, i) {
  const low = value(`${metric}_low`, i), high = value(`${metric}_high`, i), middle = value(metric, i);
  const ends = low === null || low === high ? "" : ` (${number(low)} to ${number(high)})`;
  return middle === null ? "" : number(middle) + ends;
}

/** Explains the brackets after the medians of cell i: with few repeats, intervals are their range. */
const inBrackets = i => {
  const n = value("n_repeats", i) || 0;
  return n < 2 ? "" : `, in brackets: ${n > DATA.range_up_to ? "bootstrap 95% intervals" : "range of the repeats"}`;
};

/** Knobs in which the given cells differ. */
const differing = cells => DATA.knobs.filter(knob => new Set(cells.map(i => value(knob, i))).size > 1);

const WORKLOAD = ["batch", "input_tokens", "output_tokens", "top_k", "quantization", "images"];

/** The workload of cell i in one line. */
function workload(i) {
  const users = value("concurrency", i), rate = value("request_rate", i);
  const load = users !== null ? `${plain(users)} user${users === 1 ? "" : "s"}` : rate !== null ? `${plain(rate)} requests/s` : `batch ${value("batch", i)}`;
  const parts = [value("model_title", i), load];
  if (value("input_tokens", i) !== null) parts.push(`${value("input_tokens", i)} input and ${value("output_tokens", i)} output tokens`);
  for (const knob of ["top_k", "quantization", "images"])
    if (![null, "none", 0].includes(value(knob, i))) parts.push(`${heading(knob).toLowerCase()} ${value(knob, i)}`);
  return parts.join(", ");
}

/** An element: tag, attributes (`text`, `on...` and others), children. */
function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, given] of Object.entries(attributes)) {
    if (name === "text") made.textContent = given;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), given);
    else if (given === true) made.setAttribute(name, "");
    else if (given !== false && given !== null && given !== undefined) made.setAttribute(name, given);
  }
  made.append(...children.filter(child => child !== null && child !== undefined));
  return made;
}
