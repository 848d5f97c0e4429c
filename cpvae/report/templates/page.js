"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const find = (query, under = document) => under.querySelector(query);
  const all = (query, under = document) => [...under.querySelectorAll(query)];

  // Numbers of the page are base64 of little-endian arrays.
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
  const floats = (text) => (text ? new Float32Array(bytes(text)) : new Float32Array(0));
  const shorts = (text) => (text ? new Uint16Array(bytes(text)) : new Uint16Array(0));

  // Text goes in as text, whatever it looks like.
  const make = (tag, settings = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [key, value] of Object.entries(settings)) {
      if (value === false || value === null || value === undefined) continue;
      made.setAttribute(key, value === true ? "" : value);
    }
    made.append(...children);
    return made;
  };
  // Columns keep their zeros, so that points stand below each other; sentences do not.
  const number = (value, column = false) => {
    if (value === null || value === undefined || !Number.isFinite(value)) return "–";
    const size = Math.abs(value);
    const text =
      size >= 1000
        ? Math.round(value).toLocaleString("en")
        : Number.isInteger(value)
          ? String(value)
          : size !== 0 && size < 0.001
            ? value.toPrecision(2)
            : value.toFixed(Math.max(0, 2 - Math.floor(Math.log10(size || 1))));
    return (column || !text.includes(".") ? text : text.replace(/\.?0+$/, "")).replace("-", "−");
  };
  const counted = (n, word) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;
  const brief = (text, most = 60) => (text.length > most ? text.slice(0, most - 1) + "…" : text);

  // ---- files -------------------------------------------------------------------------------
  const save = (name, content, type) => {
    const link = make("a", { download: name, href: URL.createObjectURL(new Blob([content], { type })) });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };
  // A spreadsheet would run a text that begins so; an apostrophe keeps it a text.
  const cell = (value) => {
    if (typeof value === "number") return Number.isFinite(value) ? String(value) : "";
    const text = String(value ?? "");
    const safe = /^[=+\-@\t\r]/.test(text) ? "'" + text : text;
    return /[",\n\r]/.test(safe) ? '"' + safe.replaceAll('"', '""') + '"' : safe;
  };
  const csv = (rows) => rows.map((row) => row.map(cell).join(",")).join("\n") + "\n";
  const saveRows = (name, rows) => save(name + ".csv", csv(rows), "text/csv;charset=utf-8");

  // ---- commands ----------------------------------------------------------------------------
  const folder = decodeURIComponent(location.pathname).replace(/\/[^/]*$/, "").replace(/^\/([A-Za-z]:)/, "$1");
  const quoted = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : "'" + text.replaceAll("'", `'"'"'`) + "'");
  const here = location.protocol === "file:" && folder ? folder : "RUN";
  // What is shown can be typed where runs are made; what is copied, anywhere.
  const brieflyHere = /(^|\/)results\/[^/]+$/.test(here) ? here.split("/").slice(-2).join("/") : here;
  const showCommands = (under) => {
    for (const code of all("code[data-run]", under)) {
      code.dataset.full = code.textContent.replaceAll("RUN", () => quoted(here));
      code.textContent = code.textContent.replaceAll("RUN", () => quoted(brieflyHere));
    }
  };
  const copy = async (button, text) => {
    const said = button.textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "copied";
    } catch {
      const area = make("textarea", { "aria-hidden": "true" }, text);
      document.body.append(area);
      area.select();
      button.textContent = document.execCommand("copy") ? "copied" : "copy by hand";
      area.remove();
    }
    setTimeout(() => (button.textContent = said), 1500);
  };

  // ---- tables: sorted, searched and paged by DataTables ------------------------------------
  const tables = [];
  let chosen = null; // a Set of compounds, from the map
  const asRows = (table) => {
    const value = (td) => (td.dataset.order !== undefined ? Number(td.dataset.order) : td.textContent.trim());
    const head = all("thead th", table).map((th) => find(".dt-column-title", th)?.textContent ?? th.textContent);
    return { head, value };
  };
  const addTable = (table, most = 25) => {
    const rows = table.tBodies[0].rows.length;
    const name = table.dataset.name || "table";
    const { head, value } = asRows(table);
    if (rows < 2) return null;
    const made = new DataTable(table, {
      paging: rows > most,
      pageLength: most,
      lengthChange: false,
      searching: rows > 8,
      info: rows > most,
      order: [],
      autoWidth: false,
      layout: { topStart: "search", topEnd: null, bottomStart: "info", bottomEnd: "paging" },
      language: { search: "Search this table:", info: "rows _START_ to _END_ of _TOTAL_", infoFiltered: "(of _MAX_)" },
    });
    const button = make("button", { type: "button" }, "CSV");
    button.setAttribute("aria-label", `Download ${name} as CSV`);
    button.addEventListener("click", () => {
      const lines = made.rows({ search: "applied", order: "applied" }).nodes().toArray();
      saveRows(name, [head, ...lines.map((tr) => [...tr.cells].map(value))]);
    });
    const bar = make("div", { class: "buttons" }, button);
    made.table().container().after(bar);
    find("nav", made.table().container())?.setAttribute("aria-label", `Pages of ${name}`);
    made.search.fixed("chosen", (text, row, index) => {
      const of = made.row(index).node()?.dataset.compound;
      return chosen === null || of === undefined || chosen.has(Number(of));
    });
    tables.push(made);
    return made;
  };
  const choose = (compounds) => {
    chosen = compounds && compounds.size ? compounds : null;
    for (const note of all(".chosen-note")) {
      note.hidden = chosen === null;
      find("span", note).textContent = chosen ? `Tables show the ${counted(chosen.size, "compound")} chosen on the map.` : "";
    }
    for (const table of tables) table.draw();
  };

  // ---- charts: drawn by Plotly -------------------------------------------------------------
  const shade = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  const HUES = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6BB1", "#B2182B", "#7A8B00"];
  const MARKS = ["circle", "square", "diamond", "triangle-up", "cross", "x", "star", "triangle-down", "pentagon"];
  const drawn = new Map(); // plot -> what draws it, for another scheme or size
  const axis = (title, more = {}) => ({
    title: { text: title, standoff: 8 }, gridcolor: shade("line"), zerolinecolor: shade("soft"), linecolor: shade("soft"),
    automargin: true, ...more,
  });
  const chart = (box, about, draw) => {
    let plot = find(".plot", box);
    if (!plot) {
      plot = make("div", { class: "plot " + about.size });
      const wrap = make("div", { role: "img", class: "drawing" }, plot);
      const bar = make("div", { class: "buttons" });
      for (const kind of ["SVG", "PNG", "CSV"]) {
        const button = make("button", { type: "button", "aria-label": `Download ${about.name} as ${kind}` }, kind);
        button.addEventListener("click", async () => {
          const now = drawn.get(plot).about;
          if (kind === "CSV") return saveRows(now.name, now.rows());
          const address = await Plotly.toImage(plot, { format: kind.toLowerCase(), scale: kind === "PNG" ? 2 : 1, width: plot.clientWidth, height: plot.clientHeight });
          const link = make("a", { download: `${now.name}.${kind.toLowerCase()}`, href: address });
          document.body.append(link);
          link.click();
          link.remove();
        });
        bar.append(button);
      }
      box.append(wrap, bar);
    }
    find(".drawing", box).setAttribute("aria-label", about.alt);
    drawn.set(plot, { about, draw });
    const { traces, layout } = draw();
    Plotly.react(plot, traces, {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: shade("ink"), size: 13, family: "system-ui, sans-serif" },
      margin: { l: 50, r: 10, t: 12, b: 45 }, hovermode: "closest", showlegend: false, ...layout,
    }, { displayModeBar: false, responsive: true, doubleClick: "reset", scrollZoom: about.zoom ?? false });
    return plot;
  };
  const redraw = () => { for (const [plot, { about, draw }] of drawn) chart(plot.closest(".chart"), about, draw); };

  const tip = make("div", { class: "tip", hidden: true });
  document.body.append(tip);
  const hover = (plot, words) => {
    if (plot.dataset.hovers) return;
    plot.dataset.hovers = "yes";
    plot.on("plotly_hover", (event) => {
      const text = words(event.points[0]);
      if (!text) return;
      tip.textContent = text;
      tip.hidden = false;
      const { clientX: x, clientY: y } = event.event;
      tip.style.left = Math.max(4, Math.min(x + 14, innerWidth - tip.offsetWidth - 8)) + "px";
      tip.style.top = Math.max(4, Math.min(y + 14, innerHeight - tip.offsetHeight - 8)) + "px";
    });
    plot.on("plotly_unhover", () => (tip.hidden = true));
  };
  // Plotly reads some tags in texts of its own; names are to stay what they are.
  const plain = (text) => brief(String(text)).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

  if (!data.compounds) {
    showCommands(document);
    for (const table of all("table.data")) addTable(table);
    document.documentElement.dataset.ready = "yes";
    return;
  }

  // ---- what the page knows -----------------------------------------------------------------
  const compounds = data.compounds, wells = data.wells, n = compounds.name.length;
  const norm = floats(compounds.norm), features = data.features, groups = data.groups;
  const K = data.mechanisms.length, G = features.length, M = groups.length;
  const effects = floats(data.effects), dots = floats(data.dots), gram = floats(data.gram), share = floats(data.share);
  const ofCompound = shorts(wells.compound), ofPlate = shorts(wells.plate), ofSplit = wells.split ? new Uint8Array(bytes(wells.split)) : [];
  const known = floats(wells.known), proposed = floats(wells.proposed);
  const dose = floats(wells.dose), cells = floats(wells.cells), time = floats(wells.time);
  const nameOf = (i) => (i < n ? compounds.name[i] : "control");
  const select = (box, options, value) => {
    box.replaceChildren(...options.map(([key, text]) => make("option", { value: key }, brief(text, 80))));
    if (value !== undefined) box.value = value;
  };
  const byName = (names) => names.map((name, i) => [i, name]).sort((p, q) => p[1].localeCompare(q[1]));

  // What features of a compartment and channel move, on average.
  const movedOf = (change) => {
    const sums = new Float64Array(M);
    for (let g = 0; g < G; g++) for (let m = 0; m < M; m++) sums[m] += Math.abs(change[g]) * share[g * M + m];
    return sums;
  };
  const effect = (k) => effects.subarray(k * G, (k + 1) * G);
  const lengthOf = (a, b) => data.lengths[`${data.mechanisms[a]}|${data.mechanisms[b]}`] ?? data.lengths[`${data.mechanisms[b]}|${data.mechanisms[a]}`] ?? data.length;
  // c (A - D + B - D): the calibrated sum, and its cosine with and distance to every compound.
  const sumOf = (a, b) => {
    const c = lengthOf(a, b), change = new Float64Array(G);
    for (let g = 0; g < G; g++) change[g] = c * (effects[a * G + g] + effects[b * G + g]);
    const long = c * Math.sqrt(Math.max(0, gram[a * K + a] + gram[b * K + b] + 2 * gram[a * K + b]));
    const near = compounds.name.map((name, i) => {
      const dot = c * (dots[i * K + a] + dots[i * K + b]);
      return { i, cosine: dot / (Math.abs(long) * norm[i]), l2: Math.sqrt(Math.max(0, norm[i] ** 2 + long ** 2 - 2 * dot)) };
    });
    near.sort((p, q) => (Number.isFinite(q.cosine) ? q.cosine : -2) - (Number.isFinite(p.cosine) ? p.cosine : -2) || (nameOf(p.i) < nameOf(q.i) ? -1 : 1));
    return { c, change, long: Math.abs(long), near };
  };
  const most = (change, count) => [...change.keys()].sort((p, q) => Math.abs(change[q]) - Math.abs(change[p])).slice(0, count);

  const compoundButton = (i) => make("button", { type: "button", class: "name", "data-compound": i }, brief(nameOf(i), 80));
  const smallTable = (name, caption, heads, rows) => {
    const table = make("table", { "data-name": name }, make("caption", {}, caption));
    table.append(make("thead", {}, make("tr", {}, ...heads.map(([text, isNumber]) => make("th", { scope: "col", class: isNumber ? "num" : null }, text)))));
    const body = make("tbody");
    for (const row of rows) {
      body.append(make("tr", {}, ...row.map((value, j) => {
        const isNumber = heads[j][1];
        const td = make("td", { class: isNumber ? "num" : null });
        if (isNumber && Number.isFinite(value)) td.dataset.order = value;
        td.append(isNumber ? number(value, true) : value);
        return td;
      })));
    }
    table.append(body);
    return table;
  };
  const put = (box, table) => {
    box.replaceChildren(make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": table.caption.textContent }, table));
    const { head, value } = asRows(table);
    const button = make("button", { type: "button", "aria-label": `Download ${table.dataset.name} as CSV` }, "CSV");
    button.addEventListener("click", () => saveRows(table.dataset.name, [head, ...[...table.tBodies[0].rows].map((tr) => [...tr.cells].map(value))]));
    box.append(make("div", { class: "buttons" }, button));
  };

  // ---- the map -----------------------------------------------------------------------------
  const drawMap = () => {
    const box = find("#map-widget");
    if (!box || !data.map.well) return;
    box.hidden = false;
    const at = new Uint32Array(bytes(data.map.well)), umap = floats(data.map.umap), count = at.length;
    const spaces = Object.keys(data.map.codes), codes = Object.fromEntries(spaces.map((m) => [m, floats(data.map.codes[m].z)]));
    const [where, first, second, colour, search, only] = ["where", "first", "second", "colour", "search", "only"].map((k) => find("#map-" + k));
    select(where, [["umap", "UMAP"], ...spaces.map((m) => [m, `units of ${data.names[m] ?? m}`])]);
    const colours = { moa: "mechanism", compound: "compound", plate: "plate", split: "split" };
    if (dose.length) colours.dose = "dose";
    if (cells.length) colours.cells = "cell count";
    select(colour, Object.entries(colours), "moa");
    find("#map-names").append(...[...new Set([...compounds.name, ...compounds.moa.flatMap((m) => m.split("|"))])].filter(Boolean).sort().map((value) => make("option", { value })));
    const point = (i) => {
      if (where.value === "umap") return [umap[2 * i], umap[2 * i + 1]];
      const z = codes[where.value], width = data.map.codes[where.value].n;
      return [z[i * width + Number(first.value)], z[i * width + Number(second.value)]];
    };
    const label = {
      moa: (i) => (ofCompound[i] < n ? compounds.moa[ofCompound[i]] || "no mechanism known" : "control"),
      compound: (i) => nameOf(ofCompound[i]),
      plate: (i) => wells.plates[ofPlate[i]] || "no plate known",
      split: (i) => wells.splits[ofSplit[i]] ?? "",
    };
    const told = (i) => {
      const w = at[i], lines = [brief(nameOf(ofCompound[w]), 80)];
      if (ofCompound[w] < n) lines.push(brief(compounds.moa[ofCompound[w]] || "no mechanism known", 120));
      if (Number.isFinite(dose[w])) lines.push(`${number(dose[w])} µM`);
      const place = [wells.plates[ofPlate[w]], wells.well[w]].filter(Boolean).join(", ");
      if (place) lines.push(brief(place));
      if (Number.isFinite(cells[w])) lines.push(`cell count ${number(cells[w])}`);
      return lines.join("\n");
    };
    const matched = () => {
      const words = search.value.trim().toLowerCase();
      if (!words) return null;
      return [...at.keys()].filter((i) => {
        const c = ofCompound[at[i]];
        return c < n && (compounds.name[c].toLowerCase().includes(words) || compounds.moa[c].toLowerCase().includes(words));
      });
    };
    const trace = (rows, marker, name, more = {}) => {
      const xy = rows.map(point);
      return { type: "scatter", mode: "markers", x: xy.map((p) => p[0]), y: xy.map((p) => p[1]), customdata: rows, name, hoverinfo: "none", marker: { size: 6, ...marker }, ...more };
    };
    const groupsOf = (kind) => {
      const counts = new Map(), plainKinds = ["control", "no mechanism known"];
      if (!label[kind]) return [];
      for (const i of at.keys()) counts.set(label[kind](at[i]), (counts.get(label[kind](at[i])) ?? 0) + 1);
      return [...counts.keys()].filter((l) => !plainKinds.includes(l)).sort((p, q) => counts.get(q) - counts.get(p)).map((l) => brief(l, 40));
    };
    const draw = () => {
      const units = where.value !== "umap", rows = [...at.keys()], found = matched();
      const traces = [], faded = found ? 0.25 : 0.85, kind = colour.value;
      if (kind === "dose" || kind === "cells") {
        const values = kind === "dose" ? dose : cells, shown = (v) => (kind === "dose" ? Math.log10(v) : v);
        const has = rows.filter((i) => Number.isFinite(shown(values[at[i]])));
        traces.push(trace(rows.filter((i) => !Number.isFinite(shown(values[at[i]]))), { color: shade("soft"), opacity: 0.3, size: 4 }, kind === "dose" ? "no dose" : "not counted"));
        const ends = has.map((i) => shown(values[at[i]]));
        traces.push(trace(has, { color: ends, colorscale: "Viridis", opacity: faded, colorbar: { title: { text: kind === "dose" ? "log10 µM" : "cells" }, thickness: 12 } }, colours[kind]));
      } else {
        const counts = new Map();
        const labels = rows.map((i) => label[kind](at[i]));
        labels.forEach((l, i) => {
          if (!counts.has(l)) counts.set(l, new Set());
          counts.get(l).add(kind === "moa" ? ofCompound[at[i]] : i);
        });
        const plainKinds = ["control", "no mechanism known"];
        const top = [...counts.keys()].filter((l) => !plainKinds.includes(l)).sort((p, q) => counts.get(q).size - counts.get(p).size || (p < q ? -1 : 1)).slice(0, HUES.length);
        const rest = (test, name, marker) => {
          const some = rows.filter((i) => test(labels[i]));
          if (some.length) traces.push(trace(some, marker, name));
        };
        rest((l) => l === "control", "control", { color: "rgba(0,0,0,0)", size: 4, line: { color: shade("soft"), width: 0.6 }, opacity: 0.6 * faded });
        rest((l) => l === "no mechanism known", "no mechanism known", { color: shade("soft"), size: 4, opacity: 0.45 * faded });
        rest((l) => !plainKinds.includes(l) && !top.includes(l), `${Math.max(0, counts.size - top.length - plainKinds.filter((p) => counts.has(p)).length)} others`, { color: shade("soft"), size: 5, opacity: 0.6 * faded });
        top.forEach((l, j) => traces.push(trace(rows.filter((i) => labels[i] === l), { color: HUES[j], symbol: MARKS[j], opacity: faded, size: 7 }, plain(brief(l, 38)))));
      }
      if (found) traces.push(trace(found, { color: "rgba(0,0,0,0)", size: 11, line: { color: shade("ink"), width: 2 } }, "found"));
      const narrow = box.clientWidth < 700;
      return { traces, layout: {
        showlegend: true, legend: narrow ? { orientation: "h", y: -0.15, font: { size: 11 } } : { font: { size: 12 } }, dragmode: find("#map-lasso").getAttribute("aria-pressed") === "true" ? "lasso" : "pan",
        xaxis: axis(units ? `unit ${first.value}` : "UMAP 1", units ? {} : { showticklabels: false, zeroline: false }),
        yaxis: axis(units ? `unit ${second.value}` : "UMAP 2", units ? {} : { showticklabels: false, zeroline: false }),
        uirevision: where.value + first.value + second.value, margin: { l: 45, r: 5, t: 5, b: 40 },
      } };
    };
    const rowsOfMap = () => [["compound", "mechanism", "plate", "well", "dose_uM", "x", "y"], ...[...at.keys()].map((i) => {
      const w = at[i];
      return [nameOf(ofCompound[w]), ofCompound[w] < n ? compounds.moa[ofCompound[w]] : "", wells.plates[ofPlate[w]] ?? "", wells.well[w] ?? "", dose[w] ?? NaN, ...point(i)];
    })];
    const target = find(".chart", box);
    const show = () => {
      find("#map-units").hidden = where.value === "umap";
      if (where.value !== "umap" && Number(first.dataset.n) !== data.map.codes[where.value].n) {
        const width = data.map.codes[where.value].n, units = [...Array(width).keys()].map((u) => [u, String(u)]);
        select(first, units, 0);
        select(second, units, Math.min(1, width - 1));
        first.dataset.n = width;
      }
      const found = matched();
      find("#map-found").textContent = found ? `${counted(found.length, "profile")} of ${counted(new Set(found.map((i) => ofCompound[at[i]])).size, "compound")}` : "";
      const drawnGroups = groupsOf(colour.value);
      const plot = chart(target, { name: "map", size: "tall", zoom: true, rows: rowsOfMap,
        alt: `Map of ${count} profiles, coloured by ${colours[colour.value]}; neighbours are alike.` + (found ? ` Found: ${find("#map-found").textContent}.` : "") + (drawnGroups.length ? ` Largest groups: ${drawnGroups.slice(0, 3).join(", ")}.` : "") }, draw);
      hover(plot, (p) => told(p.customdata));
      if (!plot.dataset.picks) {
        plot.dataset.picks = "yes";
        plot.on("plotly_selected", (event) => choose(event && event.points.length ? new Set(event.points.map((p) => ofCompound[at[p.customdata]]).filter((c) => c < n)) : null));
        plot.on("plotly_deselect", () => choose(null));
        plot.on("plotly_click", (event) => {
          const c = ofCompound[at[event.points[0].customdata]];
          if (c < n) showCompound(c, true);
        });
      }
      if (only.checked) choose(found ? new Set(found.map((i) => ofCompound[at[i]])) : null);
    };
    for (const control of [where, first, second, colour, only]) control.addEventListener("change", show);
    search.addEventListener("input", show);
    only.addEventListener("change", () => only.checked || choose(null));
    const [lasso, move] = [find("#map-lasso"), find("#map-move")];
    for (const [one, other] of [[lasso, move], [move, lasso]]) {
      one.addEventListener("click", () => {
        one.setAttribute("aria-pressed", "true");
        other.setAttribute("aria-pressed", "false");
        show();
      });
    }
    show();
  };

  // ---- bars --------------------------------------------------------------------------------
  // The last series is what is shown, the others what it is held against.
  const largest = (names, { name, values }) => {
    const k = [...values.keys()].reduce((best, i) => (Math.abs(values[i]) > Math.abs(values[best]) ? i : best), 0);
    return names.length ? ` Largest is ${brief(names[k])}: ${number(values[k])} (${name}).` : "";
  };
  const bars = (box, about, names, series) => chart(box, { ...about, alt: about.alt + largest(names, series.at(-1)),
    rows: () => [["", ...series.map((s) => s.name)], ...names.map((name, i) => [name, ...series.map((s) => s.values[i])])] }, () => ({
    traces: series.map((s, j) => ({ type: "bar", orientation: "h", name: plain(s.name), y: names.map((_, i) => i), x: [...s.values], hoverinfo: "none", marker: { color: s.colour ?? HUES[j] }, customdata: names.map((name, i) => `${name}\n${s.name}: ${number(s.values[i])}`) })),
    layout: { barmode: "group", bargap: 0.25, showlegend: series.length > 1, legend: { orientation: "h", y: 1.01, yanchor: "bottom", traceorder: "normal" }, margin: { l: 50, r: 10, t: series.length > 1 ? 84 : 12, b: 45 }, xaxis: axis(about.x),
      yaxis: axis("", { tickvals: names.map((_, i) => i), ticktext: names.map((t) => plain(brief(t, box.clientWidth < 500 ? 26 : 40))), autorange: "reversed", zeroline: false, showgrid: false, tickfont: { size: 11 } }) },
  }));
  const barsOf = (...given) => hover(bars(...given), (p) => p.customdata);

  // ---- pairs -------------------------------------------------------------------------------
  const far = (v) => Math.sqrt(v.reduce((sum, x) => sum + x * x, 0));
  const modelled = Object.fromEntries(Object.entries(data.predicted).map(([m, told]) => [m, { change: floats(told.change), near: shorts(told.near), cosine: floats(told.near_cosine) }]));
  // The prediction of a pair that is shown: the calibrated sum, or A - D + B in the codes of a model.
  const predictedBy = (who, p) => {
    const [a, b] = [data.pairs.a[p], data.pairs.b[p]], told = modelled[who], width = told ? told.near.length / (told.change.length / G) : 0;
    if (!told || (p + 1) * G > told.change.length) {
      const made = sumOf(a, b), near = made.near.slice(0, 8);
      return { ...made, near, name: "calibrated sum", part: ` (${number(made.c)} of A + B)`, tested: data.pairs.tested.additive_input };
    }
    const change = told.change.subarray(p * G, (p + 1) * G);
    const near = [...told.near.subarray(p * width, (p + 1) * width)].map((i, j) => ({ i, cosine: told.cosine[p * width + j] }));
    return { change, long: far(change), near, name: `A − D + B in ${data.names[who] ?? who}`, part: "", tested: data.pairs.tested[who] };
  };
  let shownPair = 0;
  const showPair = (p) => {
    const box = find("#pair-widget");
    if (!box) return;
    box.hidden = false;
    shownPair = p;
    const a = data.pairs.a[p], b = data.pairs.b[p], made = predictedBy(find("#pair-by").value, p), truth = floats(data.pairs.truth).subarray(p * G, (p + 1) * G);
    for (const row of all("#pairs tr[data-pair]")) row.classList.toggle("chosen", Number(row.dataset.pair) === p);
    find("#pair-title").textContent = data.pairs.name[p].replace("|", " + ");
    const names = [data.mechanisms[a], data.mechanisms[b]];
    let dot = 0, off = 0;
    for (let g = 0; g < G; g++) { dot += truth[g] * made.change[g]; off += (truth[g] - made.change[g]) ** 2; }
    const lies = [["the prediction", Math.sqrt(off)], [brief(names[0]), distance(truth, effect(a))], [brief(names[1]), distance(truth, effect(b))]].sort((x, y) => x[1] - y[1]);
    find("#pair-says").textContent = `Nearest to the truth lies ${lies[0][0]} (${number(lies[0][1])}), then ${lies[1][0]} (${number(lies[1][1])}) and ${lies[2][0]} (${number(lies[2][1])}). The true effect is ${number(far(truth))} long, the predicted one ${number(made.long)}${made.part}; their cosine is ${number(dot / (far(truth) * made.long))}. Lengths are in scaled units.`;
    const series = (values) => ["A: " + brief(names[0], 40), "B: " + brief(names[1], 40), made.name, "true A|B"].map((name, j) => ({ name, values: values[j], colour: ["#56B4E9", "#E69F00", "#0072B2", shade("soft")][j] }));
    const four = [effect(a), effect(b), made.change, truth];
    find("#pair-groups").hidden = M === 0;
    if (M) barsOf(find("#pair-groups .chart"), { name: "pair-channels", size: "tall", x: "mean absolute change", alt: `Mean change by compartment and channel of A, B, the prediction and the truth of ${data.pairs.name[p]}.` }, groups, series(four.map(movedOf)));
    const top = most(truth, 12);
    barsOf(find("#pair-features .chart"), { name: "pair-features", size: "tall", x: "change, scaled units", alt: `The twelve features that move most in the truth of ${data.pairs.name[p]}.` }, top.map((g) => features[g]), series(four.map((v) => top.map((g) => v[g]))));
    const [real, counts] = made.tested?.[p] ?? [NaN, []];
    find("#pair-null").hidden = counts.length === 0;
    if (counts.length) hover(chart(find("#pair-null .chart"), { name: "pair-null", size: "low", alt: `Cosine of prediction and truth: ${number(real)} with the real labels, beside those of relabelled compounds.`,
      rows: () => [["cosine_from", "relabellings"], ...counts.map((v, i) => [-1 + i / 20, v])] }, () => ({
      traces: [{ type: "bar", x: counts.map((_, i) => -0.975 + i / 20), y: counts, hoverinfo: "none", marker: { color: shade("soft") }, customdata: counts.map((v, i) => `${v} relabellings from ${number(-1 + i / 20)} to ${number(-0.95 + i / 20)}`) }],
      layout: { bargap: 0.05, xaxis: axis("cosine of prediction and truth", { range: [-1, 1] }), yaxis: axis("relabellings"), shapes: [{ type: "line", x0: real, x1: real, y0: 0, y1: 1, yref: "paper", line: { color: "#D55E00", width: 3 } }] },
    })), (q) => q.customdata);
    const rows = made.near.map((x) => [compoundButton(x.i), compounds.moa[x.i] || "–", x.cosine]);
    put(find("#pair-near"), smallTable("pair-nearest", "Compounds nearest to the prediction, by cosine of their changes from the control.", [["compound", false], ["mechanism", false], ["cosine", true]], rows));
  };
  const distance = (u, v) => { let s = 0; for (let g = 0; g < G; g++) s += (u[g] - v[g]) ** 2; return Math.sqrt(s); };
  const drawPairs = () => {
    const table = find("#pairs table.heat");
    if (!table || !data.pairs.name.length) return;
    for (const td of all("td[data-gain]", table)) {
      const v = Number(td.dataset.gain);
      if (Number.isFinite(v)) td.style.background = `rgba(var(--${v > 0 ? "more" : "less"}), ${(0.75 * Math.min(1, Math.abs(v) / 0.6)).toFixed(3)})`;
    }
    table.addEventListener("click", (event) => {
      const row = event.target.closest("tr[data-pair]");
      if (!row || event.target.closest("thead")) return;
      showPair(Number(row.dataset.pair));
    });
    const by = find("#pair-by"), first = find("tr[data-pair]", table);
    select(by, [["", "calibrated sum"], ...Object.keys(modelled).map((m) => [m, `A − D + B in ${data.names[m] ?? m}`])]);
    by.addEventListener("change", () => showPair(shownPair));
    if (first) showPair(Number(first.dataset.pair));
  };

  // ---- a sum of one's own ------------------------------------------------------------------
  const drawTry = () => {
    const box = find("#try-widget");
    if (!box || K < 2) return;
    box.hidden = false;
    const [a, b] = [find("#try-a"), find("#try-b")];
    const options = byName(data.mechanisms).map(([k, name]) => [k, `${name} (${data.n_alone[k]})`]);
    select(a, options, data.pairs.a[0] ?? options[0][0]);
    select(b, options, data.pairs.b[0] ?? options[1][0]);
    const show = () => {
      const [i, j] = [Number(a.value), Number(b.value)], same = i === j;
      find("#try-result").hidden = same;
      if (same) return void (find("#try-says").textContent = "A and B are the same; choose two.");
      const made = sumOf(i, j), between = gram[i * K + j] / Math.sqrt(gram[i * K + i] * gram[j * K + j]);
      find("#try-says").textContent = `A moves cells by ${number(Math.sqrt(gram[i * K + i]))}, B by ${number(Math.sqrt(gram[j * K + j]))} scaled units; their directions have a cosine of ${number(between)}. The calibrated sum takes ${number(made.c)} of A + B and is ${number(made.long)} long.` + (data.radius ? ` Nine of ten true states are expected within ${number(data.radius)} of it.` : "");
      put(find("#try-near"), smallTable("nearest", "Compounds nearest to the prediction. Cosine: direction from the control, 1 is the same; L2: distance, scaled units.", [["compound", false], ["mechanism", false], ["cosine", true], ["L2", true]],
        made.near.slice(0, 10).map((x) => [compoundButton(x.i), compounds.moa[x.i] || "–", x.cosine, x.l2])));
      const top = most(made.change, 15);
      barsOf(find("#try-moved .chart"), { name: "moved-features", size: "middle", x: "change, scaled units", alt: `The fifteen features that the sum of ${data.mechanisms[i]} and ${data.mechanisms[j]} moves most.` }, top.map((g) => features[g]), [{ name: "calibrated sum", values: top.map((g) => made.change[g]) }]);
      const code = find("#try-command code");
      code.dataset.full = `cpvae predict ${quoted(here)} --a ${quoted(data.mechanisms[i])} --b ${quoted(data.mechanisms[j])} --predictor calibrated_sum`;
      code.textContent = code.dataset.full.replace(quoted(here), quoted(brieflyHere));
    };
    a.addEventListener("change", show);
    b.addEventListener("change", show);
    show();
  };

  // ---- a compound --------------------------------------------------------------------------
  const wellsOf = (i) => [...ofCompound.keys()].filter((w) => ofCompound[w] === i);
  const showCompound = (i, go = false) => {
    const box = find("#card-widget");
    if (!box) return;
    find("#card-name").value = compounds.name[i].slice(0, 200);
    find("#card-title").textContent = brief(compounds.name[i], 200);
    const said = [["mechanism", compounds.moa[i] || "none known"]];
    const candidates = all(`#candidates tr[data-compound="${i}"]`);
    const has = (key) => compounds[key] && compounds[key][i] !== null && compounds[key][i] !== undefined;
    const fact = (key, name, unit = "") => has(key) && said.push([name, (typeof compounds[key][i] === "boolean" ? (compounds[key][i] ? "yes" : "no") : number(compounds[key][i])) + unit]);
    fact("n_wells", "wells"); fact("n_plates", "plates");
    if (has("dose_min")) said.push(["doses", `${number(compounds.n_doses[i])}, ${number(compounds.dose_min[i])} to ${number(compounds.dose_max[i])} µM`]);
    fact("strength", "strength", " scaled units from the control"); fact("active", "differs from the control");
    fact("replicate_r", "agreement of its wells (r)");
    if (has("cells_left")) said.push(["cells left", `${number(100 * compounds.cells_left[i])} % of the control's` + (has("cells_left_dose") ? ` at ${number(compounds.cells_left_dose[i])} µM` : "")]);
    const facts = make("table", { class: "facts" });
    for (const [key, value] of said) facts.append(make("tr", {}, make("th", { scope: "row" }, key), make("td", {}, value)));
    find("#card-facts").replaceChildren(facts);
    const links = data.links[i] ?? [];
    find("#card-links").replaceChildren(...links.flatMap(([name, address]) => [make("a", { href: address, rel: "noopener noreferrer", target: "_blank" }, name), " "]));
    // response to dose
    const mine = wellsOf(i), series = [["known", known, compounds.moa[i].split("|")[0]], ["proposed", proposed, `${data.proposed[i]} (proposed)`]].filter(([, v]) => mine.some((w) => Number.isFinite(v[w])));
    const hasDose = mine.some((w) => dose[w] > 0), hasCells = mine.some((w) => Number.isFinite(cells[w]));
    const x = (w) => (hasDose ? dose[w] : mine.indexOf(w) + 1);
    const middle = (values) => { const s = values.filter(Number.isFinite).sort((p, q) => p - q); return s.length ? (s[(s.length - 1) >> 1] + s[s.length >> 1]) / 2 : NaN; };
    find("#card-dose").hidden = !series.length && !hasCells;
    if (series.length || hasCells) hover(chart(find("#card-dose .chart"), { name: "dose-response", size: "middle",
      alt: `Likeness of the wells of ${compounds.name[i].slice(0, 80)} against dose${hasCells ? ", and their cell count" : ""}.` + series.map(([, v, name]) => ` With ${brief(name)} the median cosine is ${number(middle(mine.map((w) => v[w])))}.`).join(""),
      rows: () => [["dose_uM", "plate", "well", "like_known", "like_proposed", "cell_count"], ...mine.map((w) => [dose[w] ?? NaN, wells.plates[ofPlate[w]] ?? "", wells.well[w] ?? "", known[w] ?? NaN, proposed[w] ?? NaN, cells[w] ?? NaN])] }, () => {
      const traces = [], doses = [...new Set(mine.map(x))].filter(Number.isFinite).sort((p, q) => p - q);
      const apart = doses.filter((d, i) => i === 0 || d > 1.15 * doses[i - 1]); // labels that do not touch
      const add = (values, name, colour, yaxis, symbol) => {
        traces.push({ type: "scatter", mode: "markers", x: mine.map(x), y: mine.map((w) => values[w]), marker: { color: colour, size: 7, opacity: 0.65, symbol }, hoverinfo: "none", showlegend: false, yaxis, customdata: mine.map((w) => [wells.plates[ofPlate[w]], wells.well[w], `${name}: ${number(values[w])}`, Number.isFinite(dose[w]) ? `${number(dose[w])} µM` : "", Number.isFinite(time[w]) ? `${number(time[w])} h` : ""].filter(Boolean).map((t) => brief(t)).join("\n")) });
        if (hasDose) traces.push({ type: "scatter", mode: "lines", name: plain(name), x: doses, y: doses.map((d) => middle(mine.filter((w) => x(w) === d).map((w) => values[w]))), line: { color: colour, dash: symbol === "circle" ? "solid" : "dash" }, hoverinfo: "none", yaxis });
      };
      series.forEach(([key, values, name], j) => add(values, "like " + name, HUES[j], "y", MARKS[j]));
      if (hasCells) add(cells, "cell count", shade("soft"), "y2", "x");
      return { traces, layout: { showlegend: true, legend: { orientation: "h", y: 1.01, yanchor: "bottom" }, margin: { l: 50, r: 10, t: 40, b: 45 }, xaxis: axis(hasDose ? "dose, µM" : "well", { ...(hasDose ? { type: "log", tickvals: apart, ticktext: apart.map((d) => number(d)) } : {}), ...(hasCells && series.length ? { anchor: "y2" } : {}) }), yaxis: axis("cosine", hasCells && series.length ? { domain: [0.42, 1] } : {}), ...(hasCells ? { yaxis2: axis("cells", { domain: series.length ? [0, 0.32] : [0, 1], anchor: "x", rangemode: "tozero" }) } : {}), } };
    }), (p) => p.customdata);
    // what it moves
    find("#card-groups").hidden = M === 0;
    if (M) {
      const moved = floats(compounds.moved).subarray(i * M, (i + 1) * M);
      barsOf(find("#card-groups .chart"), { name: "compound-channels", size: "middle", x: "mean absolute change", alt: `What ${compounds.name[i].slice(0, 80)} moves, by compartment and channel.` }, groups, [{ name: "change", values: moved }]);
    }
    const T = shorts(compounds.top).length / n, top = shorts(compounds.top).subarray(i * T, (i + 1) * T), change = floats(compounds.top_change).subarray(i * T, (i + 1) * T);
    barsOf(find("#card-features .chart"), { name: "compound-features", size: "middle", x: "change, scaled units", alt: `The features that ${compounds.name[i].slice(0, 80)} moves most.` }, [...top].map((g) => features[g]), [{ name: "change", values: change }]);
    const N = shorts(compounds.near).length / n, near = shorts(compounds.near).subarray(i * N, (i + 1) * N), like = floats(compounds.near_cosine).subarray(i * N, (i + 1) * N);
    put(find("#card-near"), smallTable("neighbours", "The most similar other compounds. Similarity: cosine where compounds are compared (half-whitened features), 1 is the same.", [["compound", false], ["mechanism", false], ["similarity", true]], [...near].map((c, j) => [compoundButton(c), compounds.moa[c] || "–", like[j]])));
    const wide = ["plate", "well", "dose, µM", "time, h", "cell count", "like known", "like proposed"].map((text, j) => [text, j > 1]);
    put(find("#card-wells"), smallTable("wells", `Wells of ${compounds.name[i].slice(0, 80)}${mine.length > 200 ? ", the first 200" : ""}.`, wide, mine.slice(0, 200).map((w) => [wells.plates[ofPlate[w]] || "–", wells.well[w] || "–", dose[w] ?? NaN, time[w] ?? NaN, cells[w] ?? NaN, known[w] ?? NaN, proposed[w] ?? NaN])));
    if (go) find("#compound").scrollIntoView();
  };
  const drawCards = () => {
    const box = find("#card-widget");
    if (!box || !n) return;
    box.hidden = false;
    find("#card-names").append(...[...compounds.name].sort().map((value) => make("option", { value: value.slice(0, 200) })));
    const input = find("#card-name");
    input.addEventListener("change", () => {
      const words = input.value.trim().toLowerCase();
      let i = compounds.name.findIndex((name) => name.slice(0, 200).toLowerCase() === words);
      if (i < 0) i = compounds.name.findIndex((name) => words && name.toLowerCase().includes(words));
      find("#card-none").hidden = i >= 0;
      if (i >= 0) showCompound(i);
    });
    showCompound(data.first);
  };

  // ---- the page ----------------------------------------------------------------------------
  showCommands(document);
  for (const table of all("table.data")) addTable(table);
  drawMap();
  drawPairs();
  drawTry();
  drawCards();
  for (const figure of all("figure img")) {
    const bar = make("div", { class: "buttons" }), name = figure.dataset.name;
    const svg = make("button", { type: "button", "aria-label": `Download ${name} as SVG` }, "SVG");
    svg.addEventListener("click", () => save(name + ".svg", atob(figure.src.split(",")[1]), "image/svg+xml"));
    const png = make("button", { type: "button", "aria-label": `Download ${name} as PNG` }, "PNG");
    png.addEventListener("click", () => {
      const canvas = make("canvas", { width: 2 * figure.naturalWidth, height: 2 * figure.naturalHeight });
      canvas.getContext("2d").drawImage(figure, 0, 0, canvas.width, canvas.height);
      canvas.toBlob((blob) => save(name + ".png", blob, "image/png"));
    });
    bar.append(svg, png);
    figure.after(bar);
  }
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-compound]"), copying = event.target.closest("button.copy");
    if (button) showCompound(Number(button.dataset.compound), true);
    if (copying) copy(copying, find("code", copying.parentElement).dataset.full ?? find("code", copying.parentElement).textContent);
    if (event.target.closest(".chosen-note button")) {
      const only = find("#map-only");
      if (only) only.checked = false;
      choose(null);
    }
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  // On paper everything is open and whole.
  let closed = [], lengths = [];
  addEventListener("beforeprint", () => {
    closed = all("details:not([open])");
    for (const one of closed) one.open = true;
    lengths = tables.map((table) => table.page.len());
    for (const table of tables) table.page.len(-1).draw();
  });
  addEventListener("afterprint", () => {
    for (const one of closed) one.open = false;
    tables.forEach((table, i) => table.page.len(lengths[i]).draw());
  });
  document.documentElement.dataset.ready = "yes";
})();
