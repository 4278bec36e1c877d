// A cell's record inside the page: workload, results, every repeat, evidence of a failure, the command.

const dialog = el("dialog", { id: "record", "aria-labelledby": "record-h" });
document.body.append(dialog);
dialog.addEventListener("close", () => choose({ cell: null }));
dialog.addEventListener("click", event => { if (event.target === dialog) dialog.close(); });

function copyButton(words, text) {
  const button = el("button", { type: "button", text: words });
  button.addEventListener("click", async () => {
    await copyText(text());
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = words; }, 1500);
  });
  return button;
}

async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {  // no permission, or an old browser
    const box = el("textarea", { class: "hidden" });
    box.value = text;
    (dialog.open ? dialog : document.body).append(box);
    box.select();
    document.execCommand("copy");
    box.remove();
  }
}

function pairs(caption, rows) {
  const body = rows.map(([name, text]) => el("tr", {}, el("th", { scope: "row", text: name }), el("td", { text })));
  return el("table", { class: "pairs-table" }, el("caption", { text: caption }), el("tbody", {}, ...body));
}

function repeatsTable(i) {
  const runs = DATA.repeats.cells[i], of = DATA.repeats.of;
  if (!runs) return null;
  const head = el("tr", {}, el("th", { scope: "col", text: "Repeat" }), ...of.map(m => el("th", { scope: "col", class: "number", text: axisLabel(m) })));
  const body = runs.map((run, n) => el("tr", {}, el("th", { scope: "row", text: String(n + 1) }), ...run.map(v => el("td", { class: "number", text: number(v) }))));
  return el("table", {}, el("caption", { text: "Every repeat" }), el("thead", {}, head), el("tbody", {}, ...body));
}

/** Experiments that the cell belongs to, as links. */
function membership(i) {
  const mine = DATA.experiments.filter(e => e.rows.some(row => row[0] === i));
  return el("p", {}, "In ", ...mine.flatMap((e, n) => [n ? ", " : "", el("a", { href: `#${e.name}`, text: e.title, onclick: () => dialog.close() })]));
}

function openRecord(i, anchor = readAnchor()) {
  const id = DATA.ids[i], status = value("status", i);
  choose({ cell: id }, anchor);
  const command = DATA.rerun.replace("CELL", id), file = `${DATA.records}/${id}.json`;
  const knobs = DATA.knobs.filter(k => value(k, i) !== null).map(k => [axisLabel(k), plain(value(k, i))]);
  const results = DATA.metrics.filter(m => value(m, i) !== null).map(m => [axisLabel(m), withInterval(m, i)]);
  const more = ["engine_version", "host", "device_name", "threads", "revision", "git_commit", "started_at", "attempt", "derived_from", "prediction_refused"];
  const from = more.filter(k => value(k, i) !== null).map(k => [heading(k), plain(value(k, i))]);
  const evidence = DATA.evidence[i], reason = value("reason", i);
  const flags = ["unstable", "throttled"].filter(flag => value(flag, i));
  const planned = status === "unsupported" && value("started_at", i) === null;  // the plan knows that it cannot be
  const badge = status === "ok" ? "ok" : status === "not measured" ? "missing" : "failed";
  dialog.replaceChildren(
    el("form", { method: "dialog" }, el("button", { text: "Close", autofocus: true })),
    el("h2", { id: "record-h", text: workload(i) }),
    el("p", { class: "cell", text: id }),
    el("p", {}, el("span", { class: `status status-${badge}`, text: statusWords(i) }), ...flags.map(f => el("span", { class: "note", text: f })),
      reason ? ` ${reason}` : ""),
    membership(i),
    el("div", { class: "record-tables" },
      el("div", {}, results.length ? pairs(`Medians${inBrackets(i)}`, results) : "", from.length ? pairs("Machine and versions", from) : ""),
      el("div", {}, repeatsTable(i) || "",
        evidence ? el("h3", { text: "Engine log excerpt" }) : "", evidence ? el("pre", { tabindex: "0", "aria-label": "Engine log excerpt" }, el("code", { text: evidence })) : "",
        planned ? "" : el("h3", { text: "Measure it again" }), planned ? "" : el("pre", { tabindex: "0", "aria-label": "Command" }, el("code", { text: command })),
        el("p", {}, planned ? "" : copyButton("Copy command", () => command), " ", copyButton("Copy link to this cell", () => new URL(address("cells", { cell: id }), location.href).href)),
        planned || status === "not measured" ? "" : el("p", { class: "aside" }, "Complete record: ", el("code", { text: file })),
        pairs("Parameters", knobs))),
  );
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}

onAddress(() => {
  const i = PLACE.get(STATE.get("cell"));
  if (i !== undefined) openRecord(i);
  else if (dialog.open) dialog.close();
});
