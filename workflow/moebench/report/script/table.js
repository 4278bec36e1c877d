// The table of all cells: filter, sort, pages, copy as CSV; a row opens its record.

const PAGE = 25;
const tablePlace = document.getElementById("cells-table");
const SHOWN = ["throughput_total_tokens_per_s", "e2e_s", "ttft_s", "itl_s", "e2e_s_cv"].filter(m => DATA.metrics.includes(m));
const TEXTS = DATA.ids.map((id, i) => `${id} ${DATA.knobs.map(k => value(k, i)).join(" ")} ${statusWords(i)} ${value("unstable", i) ? "unstable" : ""} ${value("reason", i) || ""}`.toLowerCase());
let page = 0;
const VARIED = new Set(differing(DATA.ids.map((_, i) => i)));

const inExperiment = new Map(DATA.experiments.map(e => [e.name, new Set(e.rows.map(row => row[0]))]));

/** Numbers of the cells that pass the filters, sorted. */
function chosenCells() {
  const only = inExperiment.get(STATE.get("of")), status = STATE.get("state");
  const words = (STATE.get("find") || "").toLowerCase().split(/\s+/).filter(Boolean);
  const kept = [];
  for (let i = 0; i < COUNT; i++) {
    if (only && !only.has(i)) continue;
    if (status === "unstable" ? !value("unstable", i) : status && value("status", i) !== status) continue;
    if (words.every(word => TEXTS[i].includes(word))) kept.push(i);
  }
  const [column, down] = (STATE.get("sort") || "").split(":");
  if (!column) return kept;
  const sign = down ? -1 : 1;
  return kept.sort((a, b) => {
    const p = value(column, a), q = value(column, b);
    if (p === q) return a - b;
    if (p === null || q === null) return p === null ? 1 : -1;  // cells without a value come last, up or down
    return sign * (p < q ? -1 : 1);
  });
}

/** Columns of the table: the experiment's axes, or the workload; then metrics. */
function tableColumns(cells) {
  const varied = STATE.get("of") ? differing(cells).filter(k => k !== "model_title") : WORKLOAD.filter(k => VARIED.has(k));
  return ["model_title", ...varied.slice(0, 6), "status", ...SHOWN];
}

const isNumeric = column => typeof DATA.ids.map((_, i) => value(column, i)).find(v => v !== null) === "number";

function drawTable() {
  const cells = chosenCells(), shown = tableColumns(cells), numeric = new Set(shown.filter(isNumeric));
  page = Math.min(page, Math.max(0, Math.ceil(cells.length / PAGE) - 1));
  const [by, down] = (STATE.get("sort") || "").split(":");
  const head = shown.map(column => {
    const sorted = by === column ? (down ? "descending" : "ascending") : "none";
    const next = by !== column ? column : down ? null : `${column}:down`;
    return el("th", { scope: "col", class: numeric.has(column) && "number", "aria-sort": sorted },
      el("button", { type: "button", text: axisLabel(column), title: DATA.names[column][2], onclick: () => { choose({ sort: next }, "cells"); drawTable(); focusHead(column); }, "data-column": column }));
  });
  const rows = cells.slice(page * PAGE, page * PAGE + PAGE).map(i => el("tr", { "data-cell": DATA.ids[i] }, ...shown.map(column => cellOf(column, i, numeric))));
  tablePlace.querySelector("table").replaceChildren(
    el("caption", { text: "Medians over the repeats. Click a column heading to sort, or a model's name to open the cell's record." }),
    el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows));
  const last = Math.min(cells.length, page * PAGE + PAGE);
  tablePlace.querySelector(".count").textContent = cells.length ? `${page * PAGE + 1} to ${last} of ${cells.length} cells` : "No matching cells";
  tablePlace.querySelector(".before").disabled = page === 0;
  tablePlace.querySelector(".after").disabled = last >= cells.length;
}

function cellOf(column, i, numeric) {
  if (column === "model_title")
    return el("th", { scope: "row" }, el("button", { type: "button", class: "link", text: value(column, i), "aria-label": `Record: ${workload(i)}`, onclick: () => openRecord(i) }));
  if (column === "status") {
    const badge = isOk(i) ? "ok" : value("status", i) === "not measured" ? "missing" : "failed";
    return el("td", {}, el("span", { class: `status status-${badge}`, text: statusWords(i) }), value("unstable", i) ? el("span", { class: "note", text: "unstable" }) : "");
  }
  const v = value(column, i);
  return el("td", { class: numeric.has(column) && "number", text: [null, "none"].includes(v) || (column === "images" && v === 0) ? "" : DATA.knobs.includes(column) ? plain(v) : number(v) });
}

function focusHead(column) { tablePlace.querySelector(`[data-column="${column}"]`)?.focus(); }

/** The selected cells as CSV: every column, with the names and base units of the Parquet file. */
function asCsv() {
  const quoted = v => (v === null ? "" : /[",\n]/.test(String(v)) ? `"${String(v).replaceAll('"', '""')}"` : String(v));
  const names = Object.keys(DATA.columns), rows = chosenCells().map(i => [...DATA.ids[i].split("/"), ...names.map(name => value(name, i))]);
  return [["engine", "cell", ...names], ...rows].map(row => row.map(quoted).join(",")).join("\n") + "\n";
}

function buildTable() {
  const find = el("input", { type: "search", placeholder: "model, batch, status", value: "" });
  const of = el("select", {}, el("option", { value: "", text: "all experiments" }), ...DATA.experiments.map(e => el("option", { value: e.name, text: e.title })));
  const states = [...new Set(DATA.ids.map((_, i) => value("status", i)))];
  const state = el("select", {}, el("option", { value: "", text: "any" }), ...states.map(s => el("option", { value: s, text: DATA.words[s] })), el("option", { value: "unstable", text: "unstable" }));
  const set = (key, box) => box.addEventListener("input", () => { choose({ [key]: box.value || null }, "cells"); page = 0; drawTable(); });
  set("find", find); set("of", of); set("state", state);
  const turn = by => () => { page += by; drawTable(); };
  tablePlace.replaceChildren(
    el("div", { class: "controls" }, el("label", {}, "Filter", find), el("label", {}, "Experiment", of), el("label", {}, "State", state),
      copyButton("Copy as CSV", asCsv)),
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Rows of the table" }, el("table", { class: "all-cells" })),
    el("p", { class: "pages" }, el("button", { type: "button", class: "before", text: "Previous", onclick: turn(-1) }), " ",
      el("button", { type: "button", class: "after", text: "Next", onclick: turn(1) }), " ", el("span", { class: "count", role: "status" })));
  onAddress(() => {
    find.value = STATE.get("find") || ""; of.value = STATE.get("of") || ""; state.value = STATE.get("state") || "";
    drawTable();
  });
}

if (COUNT) buildTable();
