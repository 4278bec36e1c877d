// Any metric of any experiment against any axis, drawn with Observable Plot.

const explorePlace = document.getElementById("explore-place");
const PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7F7F7F", "#882255", "#999933", "#117733"];
const SYMBOLS = ["circle", "square", "triangle", "diamond", "star", "cross", "wye", "times"];
const MOST_SERIES = 24, MOST_PANELS = 8, MOST_POINTS = 12;
const FIRST = DATA.experiments.reduce((best, e) => (e.rows.filter(row => isOk(row[0])).length > (best ? best.rows.filter(row => isOk(row[0])).length : -1) ? e : best), null);
let other = null;  // another run: {name, ids, columns}
let hidden = new Set();

const chosenExperiment = () => DATA.experiments.find(e => e.name === STATE.get("e")) || FIRST;

/** Dimensions for an axis: the experiment's own axes, then knobs that differ between its cells. */
function dimensions(experiment) {
  const found = new Map(experiment.axes.map(([name, label], n) => [name, { name, label, of: row => row[n + 1] }]));
  for (const knob of differing(experiment.rows.map(row => row[0]))) {
    const name = knob === "model_title" ? "model" : knob;
    if (!found.has(name)) found.set(name, { name, label: axisLabel(knob), of: row => value(knob, row[0]), knob: true });
  }
  if (!found.size) found.set("model", { name: "model", label: "Model", of: row => value("model_title", row[0]) });
  return found;
}

/** Values of a dimension in order. If the others are numbers, a cell without one belongs to a block that does not vary it. */
const levelsOf = (dimension, rows) => {
  const seen = [...new Set(rows.map(row => dimension.of(row) ?? null))], there = seen.filter(v => v !== null);
  return there.length && there.every(v => typeof v === "number") ? there.sort((a, b) => a - b) : seen;
};

/** Default axes: those of the experiment's first figure, or the longest numeric one as x, the next as colour, the next as panels. */
function usual(experiment, all) {
  const own = [...all.values()].filter(d => !d.knob);
  const size = d => levelsOf(d, experiment.rows).length, numeric = d => levelsOf(d, experiment.rows).every(v => typeof v === "number");
  const x = [...own].sort((a, b) => numeric(b) - numeric(a) || size(b) - size(a))[0] || [...all.values()][0];
  const [c, f] = own.filter(d => d !== x && size(d) > 1).sort((a, b) => size(b) - size(a));
  const drawn = experiment.drawn;  // as in its own figure, where it has one
  if (drawn && all.has(drawn.x) && [drawn.c, drawn.f].every(name => !name || all.has(name))) return drawn;
  return { x: x.name, c: c ? c.name : "", f: f && size(f) <= MOST_PANELS ? f.name : "" };
}

/** Points to draw, and notes for the reader. */
function selection() {
  const experiment = chosenExperiment(), all = dimensions(experiment), first = usual(experiment, all);
  const pick = key => (STATE.get(key) === "-" ? "" : all.has(STATE.get(key)) ? STATE.get(key) : first[key]);
  const names = { x: pick("x") || first.x, c: pick("c"), f: pick("f") };
  const metric = DATA.metrics.includes(STATE.get("y")) ? STATE.get("y") : DATA.metrics.find(m => m === (experiment.drawn ? experiment.drawn.y : "throughput_total_tokens_per_s") && experiment.rows.some(r => value(m, r[0]) !== null)) || DATA.metrics.find(m => experiment.rows.some(r => value(m, r[0]) !== null)) || DATA.metrics[0];
  const get = name => (name ? all.get(name).of : () => "");
  const [x, c, f] = [get(names.x), get(names.c), get(names.f)];
  const colours = names.c ? levelsOf(all.get(names.c), experiment.rows).map(String) : [""];
  const stable = STATE.get("stable") === "1";
  let points = experiment.rows.map(row => ({ row, cell: row[0], x: x(row), c: String(c(row) ?? null), f: f(row) ?? null, y: value(metric, row[0]), low: value(`${metric}_low`, row[0]), high: value(`${metric}_high`, row[0]) }));
  const shown = [[names.x, "x"], [names.f, "f"]].filter(([name]) => name).map(([name, key]) => [key, new Set(levelsOf(all.get(name), experiment.rows))]);
  points = points.filter(p => colours.includes(p.c) && shown.every(([key, levels]) => levels.has(p[key] ?? null)));
  const asked = points.length, notes = [];
  points = points.filter(p => !(stable && value("unstable", p.cell)));
  if (points.length < asked) notes.push(`${asked - points.length} unstable cells hidden`);
  const without = points.filter(p => p.y === null);
  if (without.length) {
    const why = [...new Set(without.map(p => value("reason", p.cell) || statusWords(p.cell)))];
    notes.push(`${without.length} cells without a value (${why.slice(0, 3).join("; ")})`);
  }
  points = points.filter(p => p.y !== null && p.x !== null && p.x !== undefined);
  let label = axisLabel(metric), baseline = STATE.get("rel");
  if (other) {
    const theirs = new Map(other.ids.map((id, n) => [id, other.columns[metric]?.[n] ?? null]));
    points = ratio(points, p => theirs.get(DATA.ids[p.cell]) ?? null, true);
    label = `${heading(metric)}: ${other.name} / this run`;
    notes.push(`${points.length} cells are in both runs`);
  } else if (baseline && names.c && colours.includes(baseline)) {
    const rest = experiment.axes.map(([name], n) => [name, n + 1]).filter(([name]) => name !== names.c).map(([, n]) => n);
    const owned = experiment.axes.some(([name]) => name === names.c);
    const key = p => JSON.stringify(owned ? rest.map(n => p.row[n] ?? null) : [p.x, p.f]);
    const base = new Map(points.filter(p => p.c === baseline).map(p => [key(p), p.y]));
    const before = points.length;
    points = ratio(points, p => base.get(key(p)) ?? null);
    label = `${heading(metric)}, relative to ${all.get(names.c).label.replace(/ \(.*/, "").toLowerCase()} ${baseline}`;
    if (points.length < before) notes.push(`${before - points.length} cells without a counterpart`);
  } else baseline = "";
  points = points.filter(p => !hidden.has(p.c));
  const places = new Set(points.map(p => JSON.stringify([p.x, p.c, p.f])));
  const alone = places.size === points.length;
  if (!alone) notes.push("several cells have the same position: choose colour or panels to separate them");
  return { experiment, all, names, metric, colours, points, label, baseline, alone, notes, relative: Boolean(other || baseline) };
}

/** Points as ratios to a baseline value; the interval of a ratio cannot be derived from those of its parts, so none is drawn. */
function ratio(points, base, inverse = false) {
  return points.flatMap(p => {
    const b = base(p);
    return b ? [{ ...p, y: inverse ? b / p.y : p.y / b, low: null, high: null }] : [];
  });
}

function drawChart() {
  const s = selection(), box = explorePlace.querySelector(".chart"), ink = getComputedStyle(document.documentElement).getPropertyValue("--ink");
  const paper = getComputedStyle(document.documentElement).getPropertyValue("--paper");
  const colour = c => PALETTE[s.colours.indexOf(c) % PALETTE.length], symbol = c => SYMBOLS[Math.floor(s.colours.indexOf(c)) % SYMBOLS.length];
  const dimension = s.all.get(s.names.x), across = levelsOf(dimension, s.experiment.rows);
  const even = across.length <= MOST_POINTS || across.some(v => typeof v !== "number");
  const panels = s.names.f ? levelsOf(s.all.get(s.names.f), s.experiment.rows) : [];
  const facet = s.names.f ? { fx: "f" } : {};
  const log = STATE.get("log") === "1" && s.points.every(p => p.y > 0);
  const lines = s.alone && across.every(v => typeof v === "number");
  const sorted = [...s.points].sort((a, b) => across.indexOf(a.x) - across.indexOf(b.x));
  const dots = s.points, long = across.map(v => plain(v)).join("").length * 7 * Math.max(1, panels.length) > box.clientWidth - 80;
  const marks = [
    s.relative ? Plot.ruleY([1], { stroke: ink, strokeDasharray: "4 3" }) : null,
    lines ? Plot.line(sorted, { x: "x", y: "y", z: "c", stroke: p => colour(p.c), ...facet }) : null,
    Plot.link(dots.filter(p => p.low !== null), { x: "x", y1: "low", y2: "high", stroke: p => colour(p.c), ...facet }),
    Plot.dot(dots, { x: "x", y: "y", r: 4.5, symbol: p => symbol(p.c), stroke: p => colour(p.c), strokeWidth: 1.6, fill: p => (value("unstable", p.cell) ? paper : colour(p.c)), className: "dots", ...facet }),
  ].filter(Boolean);
  const wide = Math.max(box.clientWidth, 110 * panels.length + 80, 300);
  const chart = Plot.plot({
    width: wide, height: 360 + (long && even ? 50 : 0), marginLeft: 64, marginTop: panels.length ? 44 : 28, marginBottom: long && even ? 90 : 40, marginRight: 24,
    style: { background: "none", color: ink, fontSize: "12px" },
    x: { type: even ? "point" : "linear", domain: even ? across : undefined, label: dimension.label, tickFormat: even ? plain : undefined, tickRotate: long && even ? -35 : 0, labelAnchor: "right" },
    ...(panels.length ? { fx: { domain: panels, label: null, tickFormat: plain } } : {}),
    y: { label: s.label, type: log ? "log" : "linear", grid: true, zero: !log && !s.relative, ...(s.relative || log ? {} : { nice: true }) },
    symbol: { type: "identity" }, color: { type: "identity" }, marks,
  });
  chart.removeAttribute("aria-label");
  chart.setAttribute("aria-label", `${s.label} against ${dimension.label}, ${s.points.length} cells`);
  box.replaceChildren(chart);
  const svg = chart.matches("svg") ? chart : chart.querySelector("svg");
  const more = p => (s.relative ? `${s.label}: ${number(p.y)}` : null);
  const drawn = [...svg.querySelectorAll("g.dots path, g.dots circle, g[aria-label=dot] path, g[aria-label=dot] circle")].filter(e => typeof e.__data__ === "number");
  answer(svg, drawn.map(element => { const p = dots[element.__data__]; return { element, cell: p.cell, metric: s.metric, more: more(p) }; }));
  for (const g of svg.querySelectorAll("g[aria-label]")) { g.removeAttribute("aria-label"); g.removeAttribute("aria-description"); }
  if (!drawn.length) svg.setAttribute("role", "img");
  drawLegend(s, colour);
  const unstable = s.points.filter(p => value("unstable", p.cell)).length;
  explorePlace.querySelector(".said").textContent = `${s.points.length} cells${unstable ? `, ${unstable} of them unstable (hollow)` : ""}${s.notes.length ? "; " + s.notes.join("; ") : ""}.`;
  return s;
}

function drawLegend(s, colour) {
  const legend = explorePlace.querySelector(".series");
  if (!s.names.c || s.colours.length > MOST_SERIES) return legend.replaceChildren();
  legend.replaceChildren(el("span", { class: "aside", text: s.all.get(s.names.c).label }), ...s.colours.map(c => {
    const chip = el("button", { type: "button", class: "chip", "aria-pressed": String(!hidden.has(c)) }, el("i", { style: `background:${colour(c)}` }), c === "null" ? "none" : c);
    chip.addEventListener("click", () => { hidden.has(c) ? hidden.delete(c) : hidden.add(c); drawChart(); [...legend.querySelectorAll("button")][s.colours.indexOf(c)].focus(); });
    return chip;
  }));
}

function options(select, given, chosen) {
  select.replaceChildren(...given.map(([v, text]) => el("option", { value: v, text, selected: v === chosen })));
  select.value = chosen;
}

function buildExplore() {
  const box = {}, wanted = { e: "Experiment", y: "Metric", x: "X axis", c: "Colour", f: "Panels", rel: "Relative to", run: "Run B" };
  const controls = Object.entries(wanted).map(([key, text]) => { box[key] = el("select", { "data-key": key }); return el("label", {}, text, box[key]); });
  const flags = Object.entries({ log: "Log scale", stable: "Hide unstable" }).map(([key, text]) => { box[key] = el("input", { type: "checkbox", "data-key": key }); return el("label", { class: "flag" }, box[key], text); });
  const file = el("input", { type: "file", accept: ".html", class: "hidden", "aria-label": "Report of another run", tabindex: "-1" });
  explorePlace.replaceChildren(el("div", { class: "controls" }, ...controls, ...flags, file), el("div", { class: "series", role: "group", "aria-label": "Series shown" }),
    el("div", { class: "chart scroll", tabindex: "0", role: "region", "aria-label": "Chart of the chosen cells" }), el("p", { class: "said", role: "status" }));
  const fill = () => {
    const s = drawChart(), kinds = [...s.all.values()].map(d => [d.name, d.label]);
    options(box.e, DATA.experiments.map(e => [e.name, e.title]), s.experiment.name);
    options(box.y, DATA.metrics.filter(m => s.experiment.rows.some(r => value(m, r[0]) !== null) || m === s.metric).map(m => [m, axisLabel(m)]), s.metric);
    options(box.x, kinds, s.names.x);
    options(box.c, [["-", "one"], ...kinds], s.names.c || "-");
    options(box.f, [["-", "one"], ...kinds.filter(([name]) => levelsOf(s.all.get(name), s.experiment.rows).length <= MOST_PANELS)], s.names.f || "-");
    options(box.rel, [["", "nothing"], ...(s.names.c ? s.colours.map(c => [c, c]) : [])], s.baseline || "");
    options(box.run, [["", "none"], ...DATA.machines.map(m => [`m:${m.name}`, m.name]), ...(other && other.file ? [["file", other.name]] : []), ["open", "another report…"]], other ? (other.file ? "file" : `m:${other.name}`) : "");
    box.log.checked = STATE.get("log") === "1";
    box.stable.checked = STATE.get("stable") === "1";
  };
  explorePlace.addEventListener("change", event => {
    const key = event.target.dataset.key;
    if (!key) return;
    const given = event.target.type === "checkbox" ? (event.target.checked ? "1" : null) : event.target.value || null;
    hidden = new Set();
    if (key === "run" && given === "open") { file.click(); return fill(); }
    if (key === "run" && given !== "file") other = null;
    choose(key === "e" ? { e: given, x: null, c: null, f: null, rel: null, y: null } : key === "c" ? { c: given, rel: null } : { [key]: given }, "explore");
    readRun();
    fill();
  });
  file.addEventListener("change", async () => {
    try { other = await readReport(file.files[0]); } catch (error) { explorePlace.querySelector(".said").textContent = `${file.files[0].name}: ${error.message}`; return; }
    fill();
  });
  onAddress(() => { readRun(); fill(); });
  let timer;
  addEventListener("resize", () => { clearTimeout(timer); timer = setTimeout(drawChart, 150); });
  onTheme(drawChart);
}

function readRun() {
  const name = STATE.get("run");
  if (name && name.startsWith("m:")) other = DATA.machines.find(m => `m:${m.name}` === name) || null;
  else if (!other || !other.file) other = null;
}

/** The cells of another report, read from its file; nothing is sent anywhere. */
async function readReport(file) {
  const made = new DOMParser().parseFromString(await file.text(), "text/html").getElementById("cells-data");
  if (!made) throw new Error("is not a report of this version; choose a report.html");
  const theirs = JSON.parse(made.textContent);
  return { name: `${theirs.study} (${file.name})`, file: true, ids: theirs.ids, columns: theirs.columns };
}
