"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  data.units.forEach((unit) => { unit.members = unit.members.map((end) => data.ends[end]); });
  const element = (id) => document.getElementById(id);
  const table = element("matrix");
  const answer = element("answer");

  // Namespaces, their groups of equal units, and the units, as a tree: what can be expanded has children.
  const placeOf = [];
  const unit = (index) => ({ name: data.units[index].name, units: [index], children: [] });
  const group = (indexes) => ({
    name: indexes.map((index) => data.units[index].name).join(", "),
    units: indexes,
    children: indexes.length > 1 ? indexes.map(unit) : [],
  });
  const tree = data.namespaces.map(({ name, nodes }) => {
    const units = nodes.flat();
    units.forEach((index) => { placeOf[index] = name; });
    return { name, units, children: nodes.map(group), isNamespace: true };
  });
  const isSource = (index) => data.matrix[index].some((cell) => cell !== null);
  const isDestination = (index) => data.matrix.some((row) => row[index] !== null);
  const sources = new Set([...data.units.keys()].filter(isSource));
  const destinations = new Set([...data.units.keys()].filter(isDestination));

  // So many lines can be taken in at a glance: more are collapsed at first.
  const LINES_AT_FIRST = 45;
  const expanded = new Set();
  if (tree.reduce((lines, { children }) => lines + children.length + 1, 0) <= LINES_AT_FIRST) {
    tree.forEach((namespace) => expanded.add(namespace));
  }

  const count = (node) => node.units.reduce((sum, index) => sum + data.units[index].members.length, 0);
  const fullName = (index) => {
    const { name, members } = data.units[index];
    return members.length === 1 ? members[0] : `${placeOf[index]}/${name}`;
  };
  const nameOf = (node) => {
    if (node.isNamespace) return node.name;
    if (node.units.length === 1) return fullName(node.units[0]);
    return `${placeOf[node.units[0]]}/${node.name}`;
  };

  const NOTHING = { kind: "left-out", text: "" };
  const WORDS = {
    allowed: "allowed", denied: "denied", itself: "itself", "not-asked": "nothing to ask", "left-out": "not shown",
  };

  /** The cell for all pairs of two nodes; where they differ, the share of the pairs that may connect. */
  const cellOf = (from, to) => {
    const found = new Set();
    let [pairs, connected] = [0, 0];
    for (const source of from.units) {
      for (const destination of to.units) {
        const index = data.matrix[source][destination];
        if (index === null) continue;
        const cell = data.cells[index];
        if (cell.kind === "itself" && (from.units.length > 1 || to.units.length > 1)) continue;
        found.add(cell);
        const size = data.units[source].members.length * data.units[destination].members.length;
        pairs += size;
        if (cell.kind === "allowed" || cell.kind === "partly") connected += size;
      }
    }
    if (found.size < 2) return [...found][0] ?? NOTHING;
    const share = Math.min(Math.max(Math.round((100 * connected) / pairs), 1), 99);
    return { kind: "mixed", text: connected === 0 ? "0%" : connected === pairs ? "100%" : `${share}%` };
  };

  const words = ({ kind, text }) => {
    if (kind === "partly") return `allowed on ${text} only`;
    if (kind === "mixed") return `differs among its pods, ${text} of the pairs may connect`;
    return WORDS[kind];
  };

  const filterOf = (side) => {
    const text = element(side).value.trim().toLowerCase();
    const namespace = element(`${side}-namespace`).value;
    return { text, namespace, isSet: text !== "" || namespace !== "" };
  };

  const matches = (index, { text, namespace }) =>
    (namespace === "" || placeOf[index] === namespace) &&
    (text === "" || data.units[index].members.some((name) => name.toLowerCase().includes(text)) ||
      fullName(index).toLowerCase().includes(text));

  /** What is left of a node: itself, its part that matches, or null. */
  const part = (node, keeps) => {
    const units = node.units.filter(keeps);
    if (units.length === 0) return null;
    if (units.length === node.units.length) return { ...node, of: node };
    const children = node.children.map((child) => part(child, keeps)).filter((child) => child !== null);
    const name = node.isNamespace ? node.name : units.map((index) => data.units[index].name).join(", ");
    return { ...node, of: node, name, units, children: children.length === 1 && !node.isNamespace ? [] : children };
  };

  /** The nodes to show on one side, from the namespaces down. */
  const lines = (filter, chosen) => {
    const shown = [];
    const walk = (node, level) => {
      const kept = part(node, (index) => chosen.has(index) && matches(index, filter));
      if (kept === null) return;
      const isOpen = kept.children.length > 0 && (expanded.has(node) || (filter.isSet && node.isNamespace));
      shown.push({ ...kept, level, isOpen, canOpen: kept.children.length > 0 });
      if (isOpen) node.children.forEach((child) => walk(child, level + 1));
    };
    tree.forEach((namespace) => walk(namespace, 0));
    return shown;
  };

  const fits = (cell, only) =>
    only === "" ? true : cell.kind === only || cell.kind === "partly" || cell.kind === "mixed";

  let rows = [];
  let columns = [];
  let cells = [];
  let position = [1, 1];
  let chosen = null;

  /** Leaves what has the wanted verdicts. */
  const reduce = (only) => {
    cells = rows.map((row) => columns.map((column) => {
      const cell = cellOf(row, column);
      return fits(cell, only) ? cell : NOTHING;
    }));
    if (only === "") return;
    const says = (cell) => cell.kind !== "left-out" && cell.kind !== "itself";
    const rowsLeft = rows.map((_, row) => cells[row].some(says));
    const columnsLeft = columns.map((_, column) => cells.some((row) => says(row[column])));
    cells = cells.filter((_, row) => rowsLeft[row]).map((row) => row.filter((_, column) => columnsLeft[column]));
    rows = rows.filter((_, row) => rowsLeft[row]);
    columns = columns.filter((_, column) => columnsLeft[column]);
  };

  const header = (node, scope) => {
    const cell = document.createElement("th");
    cell.scope = scope;
    cell.setAttribute("role", scope === "row" ? "rowheader" : "columnheader");
    cell.className = `level-${node.level}${node.isNamespace ? " namespace" : ""}`;
    cell.tabIndex = -1;
    const text = document.createElement("span");
    const mark = node.canOpen ? (node.isOpen ? "▾ " : "▸ ") : "";
    text.textContent = mark + node.name;
    if (node.isNamespace && !node.isOpen) {
      const size = document.createElement("small");
      size.textContent = ` ${count(node)}`;
      text.append(size);
    }
    if (node.canOpen) cell.setAttribute("aria-expanded", String(node.isOpen));
    cell.title = node.units.flatMap((index) => data.units[index].members).slice(0, 40).join("\n");
    cell.append(text);
    return cell;
  };

  const dataCell = (row, column) => {
    const cell = document.createElement("td");
    const { kind, text } = cells[row][column];
    cell.setAttribute("role", "gridcell");
    cell.className = kind;
    cell.tabIndex = -1;
    cell.textContent = text;
    cell.setAttribute("aria-label", `${nameOf(rows[row])} to ${nameOf(columns[column])}: ${words(cells[row][column])}`);
    return cell;
  };

  /** The element at a place of the grid; row and column 0 are the headers. */
  const at = ([row, column]) => table.rows[row]?.cells[column];

  const moveTo = (row, column, focus = true) => {
    const last = at(position);
    if (last) last.tabIndex = -1;
    const bound = (value, length) => Math.min(Math.max(value, 0), length);
    position = [bound(row, rows.length), bound(column, columns.length)];
    const cell = at(position);
    if (!cell) return;
    cell.tabIndex = 0;
    if (focus) {
      cell.focus();
      cell.scrollIntoView({ block: "nearest", inline: "nearest" });
    }
  };

  const render = () => {
    const [from, to] = ["from", "to"].map(filterOf);
    rows = lines(from, sources);
    columns = lines(to, destinations);
    reduce(element("only").value);
    const isEmpty = rows.length === 0 || columns.length === 0;
    element("nothing").hidden = !isEmpty;
    table.hidden = isEmpty;
    const head = document.createElement("thead");
    const top = document.createElement("tr");
    const corner = document.createElement("th");
    corner.className = "corner";
    corner.tabIndex = -1;
    corner.textContent = "from ↓ to →";
    top.append(corner, ...columns.map((column) => header(column, "col")));
    head.append(top);
    const body = document.createElement("tbody");
    rows.forEach((node, row) => {
      const line = document.createElement("tr");
      line.append(header(node, "row"), ...columns.map((_, column) => dataCell(row, column)));
      body.append(line);
    });
    table.replaceChildren(head, body);
    table.setAttribute("aria-rowcount", String(rows.length + 1));
    table.setAttribute("aria-colcount", String(columns.length + 1));
    moveTo(...position, false);
    mark();
  };

  const mark = () => {
    table.querySelector("td.chosen")?.classList.remove("chosen");
    if (!chosen) return;
    const row = rows.findIndex((node) => nameOf(node) === chosen[0]);
    const column = columns.findIndex((node) => nameOf(node) === chosen[1]);
    if (row >= 0 && column >= 0) at([row + 1, column + 1]).classList.add("chosen");
  };

  const make = (tag, text, className = "") => {
    const made = document.createElement(tag);
    made.textContent = text;
    made.className = className;
    return made;
  };

  /** The words of `podfence explain`. */
  const explanation = (parts) => {
    const shown = [];
    for (const [traffic, ...places] of parts) {
      const sides = places.map((place) => data.sides[place]);
      const allowed = sides.every(([allows]) => allows);
      const title = make("h3", "", allowed ? "allowed" : "denied");
      title.append(make("b", allowed ? "ALLOWED" : "DENIED"), ` ${data.traffic[traffic]}`);
      const list = document.createElement("ul");
      for (const [level, text, origin] of sides.flatMap(([, lines]) => lines).map((line) => data.lines[line])) {
        const item = make("li", text, `line-${level}`);
        if (origin) item.append(make("span", origin, "origin"));
        list.append(item);
      }
      shown.push(title, list);
    }
    return shown;
  };

  const members = (heading, node) => {
    const names = node.units.flatMap((index) => data.units[index].members);
    if (names.length < 2) return [];
    const details = document.createElement("details");
    details.append(make("summary", `${names.length} ${heading}`), make("p", names.join(", ")));
    return [details];
  };

  const show = (row, column) => {
    const [from, to, cell] = [rows[row], columns[column], cells[row][column]];
    if (cell.kind === "left-out") return;
    chosen = [nameOf(from), nameOf(to)];
    const close = make("button", "Close", "close");
    close.type = "button";
    close.addEventListener("click", hide);
    const shown = [close, make("h2", `${nameOf(from)} → ${nameOf(to)}`), make("p", words(cell))];
    shown.push(...members("sources", from), ...members("destinations", to));
    const pairs = from.units.flatMap((source) => to.units.map((destination) => [source, destination]));
    const why = pairs.map(([source, destination]) => data.why[source][destination] ?? null);
    const first = why.find((index) => index !== null);
    if (cell.kind === "itself") {
      shown.push(make("p", "A pod always reaches itself."));
    } else if (cell.kind === "mixed") {
      shown.push(make("p", "Expand the rows and columns to see the pods one by one.", "hint"));
      const expand = make("button", "Expand");
      expand.type = "button";
      expand.addEventListener("click", () => { open(from, to); });
      shown.push(expand);
    } else if (first === undefined && cell.kind !== "not-asked") {
      const command = `podfence explain -f … --from ${fullName(from.units[0])} --to ${fullName(to.units[0])}`;
      shown.push(make("p", "The page has no room for every explanation. Ask for this one:"), make("code", command));
    } else if (first !== undefined) {
      const [source, destination, parts] = data.reasons[first];
      const isOne = count(from) === 1 && count(to) === 1;
      if (!isOne) shown.push(make("p", `Why, by the example of ${data.ends[source]} → ${data.ends[destination]}:`, "hint"));
      shown.push(...explanation(parts));
    }
    answer.replaceChildren(...shown);
    answer.scrollTop = 0;
    mark();
  };

  const hide = () => {
    chosen = null;
    answer.replaceChildren(make("p", "Choose a cell to see why.", "hint"));
    mark();
    at(position)?.focus();
  };

  const open = (...nodes) => {
    nodes.forEach((node) => expanded.add(node.of));
    render();
    at(position)?.focus();
  };

  const toggle = (node) => {
    if (!node.canOpen) return;
    if (expanded.has(node.of)) expanded.delete(node.of);
    else expanded.add(node.of);
    render();
    at(position)?.focus();
  };

  const act = ([row, column]) => {
    if (row === 0 && column === 0) return;
    if (row === 0) toggle(columns[column - 1]);
    else if (column === 0) toggle(rows[row - 1]);
    else show(row - 1, column - 1);
  };

  const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1],
    PageUp: [-10, 0], PageDown: [10, 0] };

  table.addEventListener("keydown", (event) => {
    const [row, column] = position;
    const step = STEPS[event.key];
    if (step && !event.altKey && !event.metaKey && !event.ctrlKey) moveTo(row + step[0], column + step[1]);
    else if (event.key === "Home") moveTo(event.ctrlKey ? 0 : row, 0);
    else if (event.key === "End") moveTo(event.ctrlKey ? rows.length : row, columns.length);
    else if (event.key === "Enter" || event.key === " ") act(position);
    else return;
    event.preventDefault();
  });

  table.addEventListener("click", (event) => {
    const cell = event.target.closest("td, th");
    if (!cell) return;
    moveTo(cell.parentElement.rowIndex, cell.cellIndex);
    act(position);
  });

  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && chosen) hide();
  });

  for (const side of ["from", "to"]) {
    for (const { name } of data.namespaces) element(`${side}-namespace`).append(new Option(name, name));
  }
  element("filters").addEventListener("input", render);
  element("filters").addEventListener("submit", (event) => event.preventDefault());
  element("expand").addEventListener("click", () => {
    tree.flatMap((namespace) => [namespace, ...namespace.children]).forEach((node) => expanded.add(node));
    render();
  });
  element("collapse").addEventListener("click", () => {
    expanded.clear();
    render();
  });
  element("reset").addEventListener("click", () => {
    element("filters").reset();
    render();
  });
  element("summary").textContent = data.summary;
  if (data.note) {
    element("note").textContent = data.note;
    element("note").hidden = false;
  }
  render();
})();
