// Values of marks on hover and focus (arrow keys move between marks); a click opens the cell's record.
// Marks of drawn figures name their rows (figures/marks.py); those of the explorer carry their cell.
// A mark belongs to a cell, shows rows of the figure's data, or both (a tile in a cell's heat map).

const tip = el("div", { id: "tip", hidden: true, role: "tooltip" });
document.body.append(tip);
const NEAR = 18;  // CSS pixels from a mark at which it answers

/** Text of a mark: the value of its metric and how it was measured. */
function told(mark) {
  if (mark.rows) return toldOfRows(mark);
  const { cell, metric } = mark;
  const lines = [workload(cell)];
  if (isOk(cell) && value(metric, cell) !== null) {
    const unit = DATA.names[metric][1];
    lines.push(`${heading(metric)}: ${withInterval(metric, cell)}${unit ? ` ${unit}` : ""}`);
    const repeats = value("n_repeats", cell);
    if (repeats) lines.push(`median of ${repeats} repeat${repeats > 1 ? "s" : ""}${inBrackets(cell)}${value("unstable", cell) ? "; UNSTABLE" : ""}`);
  } else if (isOk(cell)) lines.push(`${heading(metric)}: not measured`);
  else lines.push(`${statusWords(cell)}${value("reason", cell) ? `: ${value("reason", cell)}` : ""}`);
  if (mark.more) lines.push(mark.more);
  return lines;
}

function showTip(mark) {
  const lines = told(mark), box = mark.element.getBoundingClientRect();
  tip.replaceChildren(...lines.map((line, i) => el(i === 1 ? "strong" : "span", { text: line })));
  tip.hidden = false;
  const wide = tip.offsetWidth, high = tip.offsetHeight, middle = box.left + box.width / 2;
  const left = Math.max(4, Math.min(middle - wide / 2, document.documentElement.clientWidth - wide - 4));
  const above = box.top - high - 8;
  tip.style.left = `${left + scrollX}px`;
  tip.style.top = `${(above > 0 ? above : box.bottom + 8) + scrollY}px`;
}

function hideTip() { tip.hidden = true; }

const isCell = mark => mark.cell !== null && mark.cell !== undefined;

/** Make an SVG's marks interactive. A mark: {element, metric, cell, more}, or {element, metric, rows, tells, cell, across}. */
function answer(svg, marks) {
  if (!marks.length) return;
  let current = null;
  const point = mark => {
    if (current) current.element.classList.remove("pointed");
    current = mark;
    if (!mark) return hideTip();
    mark.element.classList.add("pointed");
    showTip(mark);
  };
  const at = new Map(marks.map((mark, i) => [mark.element, i]));
  marks.forEach((mark, i) => {
    if (isCell(mark)) mark.element.setAttribute("data-cell", DATA.ids[mark.cell]);
    mark.element.setAttribute("tabindex", i ? "-1" : "0");
    mark.element.setAttribute("role", isCell(mark) ? "button" : "img");
    mark.element.setAttribute("aria-label", told(mark).join("; "));
  });
  svg.setAttribute("role", "group");
  const nearest = event => {
    const direct = at.get(event.target.closest("[tabindex]"));
    if (direct !== undefined) return marks[direct];
    let best = null, least = NEAR;
    for (const mark of marks) {
      const box = mark.element.getBoundingClientRect();
      if (!box.width && !box.height) continue;
      const x = Math.max(box.left - event.clientX, 0, event.clientX - box.right);
      const y = Math.max(box.top - event.clientY, 0, event.clientY - box.bottom);
      const far = Math.hypot(x, y);
      if (far < least) [best, least] = [mark, far];
    }
    return best;
  };
  svg.addEventListener("pointermove", event => { const mark = nearest(event); if (mark !== current) point(mark); });
  svg.addEventListener("pointerleave", () => point(null));
  svg.addEventListener("click", event => { const mark = nearest(event); if (mark && isCell(mark)) openRecord(mark.cell); });
  svg.addEventListener("focusin", event => { const i = at.get(event.target); if (i !== undefined) point(marks[i]); });
  svg.addEventListener("focusout", () => point(null));
  svg.addEventListener("keydown", event => {
    const i = at.get(event.target);
    if (i === undefined) return;
    if (event.key === "Enter" || event.key === " ") { if (isCell(marks[i])) openRecord(marks[i].cell); }
    else if (event.key === "Escape") point(null);
    else {
      const across = marks[i].across || 1, step = { ArrowRight: 1, ArrowDown: across, ArrowLeft: -1, ArrowUp: -across }[event.key];
      if (!step) return;
      const next = marks[(i + step + marks.length) % marks.length].element;
      marks[i].element.setAttribute("tabindex", "-1");
      next.setAttribute("tabindex", "0");
      next.focus();
    }
    event.preventDefault();
  });
}

/** The marks of a drawn figure. */
function marksOf(svg) {
  const id = svg.closest("figure").id, name = svg.dataset.name, cells = DATA.figures[id], tells = DATA.tells[id], marks = [];
  const rows = tells ? rowsOf(svg.closest("figure")) : [];
  const named = new RegExp(`^${CSS.escape(name)}-(?:mark|lacks)\\.hue\\d+\\.(\\w+)\\.([\\d-]+)$`);
  for (const group of svg.querySelectorAll(`[id^="${name}-mark."], [id^="${name}-lacks."]`)) {
    const [, metric, numbers] = named.exec(group.id) || [];
    if (!metric || !DATA.names[metric]) continue;
    const of = numbers.split("-").map(Number), uses = [...group.querySelectorAll("use")];
    const parts = uses.length ? uses.map((element, n) => [element, of.slice(n, n + 1)]) : [[group, tells ? of : of.slice(0, 1)]];
    for (const [element, mine] of parts) {
      if (cells && mine.length && cells[mine[0]] !== null) marks.push({ element, metric, cell: cells[mine[0]] });
      else if (mine.length && mine.every(n => rows[n])) marks.push({ element, metric, tells, rows: mine.map(n => rows[n]) });
    }
  }
  for (const panel of svg.querySelectorAll(`[id^="${name}-map."]`)) marks.push(...places(panel, rows, tells));
  return marks;
}

/** The tiles of a heat map as marks: rectangles over the picture, which is pixels in the SVG. */
function places(panel, rows, tells) {
  const [, metric, first, lines, across] = /map\.(\w+)\.(\d+)\.(\d+)x(\d+)$/.exec(panel.id), box = panel.getBBox(), made = [];
  const layer = document.createElementNS(panel.namespaceURI, "g"), wide = box.width / across, high = box.height / lines;
  for (let n = 0; n < lines * across; n++) {
    const row = rows[Number(first) + n];
    if (!row) continue;
    const element = document.createElementNS(panel.namespaceURI, "rect");
    const size = { x: box.x + (n % across) * wide, y: box.y + Math.floor(n / across) * high, width: wide, height: high, fill: "#000", "fill-opacity": 0 };
    for (const [key, given] of Object.entries(size)) element.setAttribute(key, given);
    layer.append(element);
    made.push({ element, metric, tells, rows: [row], cell: PLACE.get(`${row.engine}/${row.cell}`), across: Number(across) });
  }
  panel.closest("svg").append(layer);
  return made;
}

/** Make a drawn figure interactive: its marks, and its legend, whose entries hide their series. */
function enhance(svg) {
  const figure = svg.dataset.name;
  if (svg.dataset.live) return;
  svg.dataset.live = "yes";
  answer(svg, marksOf(svg));
  const entries = new Map();
  for (const part of svg.querySelectorAll(`[id^="${figure}-legend.hue"]`)) {
    const hue = /legend\.(hue\d+)/.exec(part.id)[1];
    entries.set(hue, [...(entries.get(hue) || []), part]);
  }
  if (entries.size > 1) for (const [hue, parts] of entries) toggles(svg, figure, hue, parts);
}

function toggles(svg, figure, hue, parts) {
  const label = parts.find(part => part.id.endsWith(".text")) || parts[0];
  const toggle = () => {
    const off = label.getAttribute("aria-pressed") === "true";
    label.setAttribute("aria-pressed", String(!off));
    parts.forEach(part => part.classList.toggle("entry-off", off));
    for (const kind of ["mark", "part", "lacks"])
      svg.querySelectorAll(`[id^="${figure}-${kind}.${hue}."]`).forEach(one => one.classList.toggle("series-off", off));
  };
  label.setAttribute("role", "button");
  label.setAttribute("tabindex", "0");
  label.setAttribute("aria-pressed", "true");
  label.setAttribute("aria-label", `Series ${label.textContent.trim()}`);
  for (const part of parts) {
    part.classList.add("entry");
    part.addEventListener("click", event => { event.stopPropagation(); toggle(); });
  }
  label.addEventListener("keydown", event => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    toggle();
  });
  svg.setAttribute("role", "group");
}
