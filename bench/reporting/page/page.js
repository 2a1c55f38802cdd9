"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const ids = data.ids;
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const el = (tag, attributes, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
    node.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
    return node;
  };
  document.documentElement.classList.add("js");

  // Which data set and protocol is shown.
  const groups = all("[data-group]");
  const choose = (slug) => groups.forEach((node) => node.classList.toggle("on", node.dataset.group === slug));
  const select = document.getElementById("group");
  choose(select ? select.value : groups[0] && groups[0].dataset.group);
  if (select) select.addEventListener("change", () => choose(select.value));

  // Light and dark: the reader's system decides until the button is used.
  const root = document.documentElement;
  document.getElementById("theme").addEventListener("click", () => {
    const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = isDark ? "light" : "dark";
  });

  // Sorting: within each section of a table, holes last.
  const valueOf = (row, column) => {
    const cell = row.cells[column];
    if (!cell || cell.classList.contains("why")) return null;
    if (cell.dataset.v !== undefined) return Number(cell.dataset.v);
    return column === 0 || cell.tagName === "TD" && !cell.closest("table").querySelector("td[data-v]") ? cell.textContent.trim().toLowerCase() : null;
  };
  const compare = (a, b) => typeof a === "number" ? a - b : a.localeCompare(b, undefined, { numeric: true });
  all("th .sort").forEach((button) => button.addEventListener("click", () => {
    const head = button.closest("th"), table = head.closest("table"), column = head.cellIndex;
    const isDescending = head.getAttribute("aria-sort") === "ascending";
    all("th[aria-sort]", table).forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", isDescending ? "descending" : "ascending");
    for (const body of table.tBodies) {
      const rows = [...body.rows].filter((row) => !row.classList.contains("section"));
      const keyed = rows.map((row) => [valueOf(row, column), row]);
      const full = keyed.filter(([key]) => key !== null && key !== ""), empty = keyed.filter(([key]) => key === null || key === "");
      full.sort(([a], [b]) => compare(a, b) * (isDescending ? -1 : 1));
      body.append(...[...full, ...empty].map(([, row]) => row));
    }
  }));

  // Filtering: every word must occur in what the row says; its numbers do not count.
  const filter = (input) => {
    const table = document.getElementById(input.dataset.filter);
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0, total = 0;
    for (const body of table.tBodies) {
      let inBody = 0;
      for (const row of body.rows) {
        if (row.classList.contains("section")) continue;
        const label = [...row.cells].filter((cell) => !cell.querySelector(".num")).map((cell) => cell.textContent).join(" ").toLowerCase();
        row.hidden = !words.every((word) => label.includes(word));
        total += 1; inBody += !row.hidden;
      }
      shown += inBody;
      all(".section", body).forEach((row) => { row.hidden = inBody === 0; });
    }
    document.querySelector(`[data-count="${input.dataset.filter}"]`).textContent = words.length ? `${shown} of ${total} rows` : `${total} rows`;
  };
  all("[data-filter]").forEach((input) => { filter(input); input.addEventListener("input", () => filter(input)); });
  all("[data-columns]").forEach((box) => box.addEventListener("change", () =>
    document.getElementById(box.dataset.columns).classList.toggle("headline", !box.checked)));

  // What is wider than the page says so, until it is scrolled to its end.
  all(".scroll").forEach((scroller) => {
    const hint = el("p", { class: "hint", "aria-hidden": "true" }, "more to the right →");
    scroller.before(hint);
    const look = () => {
      const isClipped = scroller.scrollWidth - scroller.clientWidth - scroller.scrollLeft > 1;
      scroller.classList.toggle("clipped", isClipped);
      hint.hidden = !isClipped;
    };
    const observer = new ResizeObserver(look);
    observer.observe(scroller);
    observer.observe(scroller.firstElementChild);
    scroller.addEventListener("scroll", look, { passive: true });
    look();
  });

  // The sample browser: two panes, each a row and a slider over its steps.
  all("[data-browser]").forEach((browser) => {
    const series = data.parts[browser.dataset.browser];
    all("figure", browser).forEach((pane, side) => {
      const list = pane.querySelector("select"), slider = pane.querySelector("input"), output = pane.querySelector("output");
      const image = pane.querySelector("img"), caption = pane.querySelector("figcaption");
      series.forEach((one, index) => list.append(el("option", { value: index }, one.label)));
      const show = () => {
        const stop = series[list.value].stops[slider.value];
        output.textContent = stop.steps === null ? "" : stop.steps;
        slider.setAttribute("aria-valuetext", stop.steps === null ? "" : `${stop.steps} steps`);
        image.src = data.images[stop.image];
        image.alt = `Samples: ${stop.label}`;
        caption.textContent = stop.facts ? `${stop.label}: ${stop.facts}` : stop.label;
      };
      const change = () => {
        const stops = series[list.value].stops;
        slider.max = stops.length - 1; slider.value = stops.length - 1;
        pane.querySelector(".steps").hidden = stops.length < 2;
        show();
      };
      list.value = side === 0 ? 0 : Math.min(1, series.length - 1);
      list.addEventListener("change", change);
      slider.addEventListener("input", show);
      change();
    });
  });

  // Provenance: where a number comes from.
  const dialog = document.getElementById("provenance"), body = dialog.querySelector(".body");
  const plain = (value) => value === null || value === undefined ? "" : typeof value === "object" ? JSON.stringify(value) : String(value);
  const short = (value) => typeof value === "number" ? Number(value.toPrecision(6)).toString() : plain(value);
  const pairs = (rows) => el("table", {}, el("tbody", {}, ...rows.filter(([, value]) => value !== "" && value !== null && value !== undefined)
    .map(([name, value]) => el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, value instanceof Node ? value : short(value))))));
  const flat = (tree, prefix = "") => Object.entries(tree).flatMap(([key, value]) =>
    value && typeof value === "object" && !Array.isArray(value) ? flat(value, `${prefix}${key}.`) : [[prefix + key, plain(value)]]);
  const unpacked = (indices) => Object.fromEntries(Object.entries(indices || {}).map(([key, index]) => [key, data.parts[index]]));
  const open = (title, ...content) => {
    document.getElementById("provenance-title").textContent = title;
    body.replaceChildren(...content);
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
  };
  const recordButton = (id) => el("button", { type: "button", "data-record": id }, id);
  const fold = (title, ...content) => el("details", {}, el("summary", {}, title), ...content);

  const recordDetails = (id) => {
    const record = data.records[id], from = unpacked(record.provenance), spec = unpacked(record.spec);
    const commit = from.git_commit ? from.git_commit + (from.git_dirty ? " (with uncommitted changes)" : "") : "";
    return [
      pairs([["record", `records/${id}.json`], ["run", record.label], ["role", record.role], ["status", record.status], ["created", record.created],
        ["run key", record.run_key], ["commit", commit], ["device", from.device], ["hardware", from.hardware ? flat(from.hardware).map(([k, v]) => `${k}: ${v}`).join(", ") : ""],
        ["versions", from.versions ? Object.entries(from.versions).map(([k, v]) => `${k} ${v}`).join(", ") : ""], ["threads", from.threads],
        ["parameters", from.parameters ? Object.entries(from.parameters).map(([k, v]) => `${k} ${v.toLocaleString("en")}`).join(", ") : ""]]),
      record.message ? el("pre", {}, record.message) : "",
      from.artefacts ? el("h3", {}, "Artefacts") : "",
      from.artefacts ? pairs(Object.entries(from.artefacts).map(([stage, one]) => [stage, `${one.key}${one.wall_seconds !== undefined ? `, ${short(one.wall_seconds)} s` : ""}`])) : "",
      fold("Protocol", pairs(flat(from.protocol || {}))),
      fold("Complete configuration", pairs(flat(spec))),
    ].filter(Boolean);
  };
  const showRecord = (id) => data.records[id] && open(data.records[id].label, ...recordDetails(id));

  const showCell = (index) => {
    const [shared, row, text, sources] = data.cells[index], cell = data.parts[shared];
    const content = [el("p", { class: "big" }, text)];
    if (cell.about) content.push(el("p", { class: "note" }, cell.about));
    content.push(pairs([["unit", cell.unit], ["interval", cell.basis && !cell.published ? cell.basis : ""], ["bound", cell.bound ? `${cell.bound} bound` : ""],
      ["note", cell.note], ["published in", cell.published], ["where", cell.published ? cell.basis : ""]]));
    sources.forEach(([number, training, sampling, value, low, high, error, n, noteAt, protocol, extra], at) => {
      const id = ids[number], note = data.parts[noteAt];
      content.push(el("h3", {}, sources.length > 1 ? `Run ${at + 1} of ${sources.length}` : "Run"));
      content.push(pairs([["value", value === null ? "none" : short(value)], ["95% interval", low === null || high === null ? "" : `${short(low)} to ${short(high)}`],
        ["standard error", error], ["n", n], ["protocol", data.parts[protocol]], ["note", note === cell.note ? "" : note], ["seeds", `training ${training}, sampling ${sampling}`],
        ["more", extra === null ? "" : flat(data.parts[extra]).map(([k, v]) => `${k}: ${v}`).join(", ")], ["record", recordButton(id)]]));
    });
    if (sources.length === 1) content.push(el("h3", {}, "Record"), ...recordDetails(ids[sources[0][0]]));
    open(`${cell.title}, ${data.parts[row]}`, ...content);
  };
  document.addEventListener("click", (event) => {
    const number = event.target.closest("[data-cell]"), record = event.target.closest("[data-record]");
    if (number) showCell(Number(number.dataset.cell));
    else if (record) showRecord(record.dataset.record);
    else if (event.target === dialog) dialog.close();
  });

  // On paper every table is unfolded.
  addEventListener("beforeprint", () => all("details.table").forEach((node) => { node.open = true; }));
})();
