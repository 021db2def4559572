// The list of sessions: a virtual table, of which only the rows in view exist.

import * as api from './api.js';
import { bytes, dayAndClock, exact, exactTime, number, rfc3339, span } from './format.js';
import { protocolName } from './store.js';
import { change, state } from './state.js';
import { el } from './ui.js';

const ROW = 26;
// Chromium has a limit of 33,554,428 pixels; a longer list has a scaled scrollbar.
const HEIGHT_MAX = 16000000;
const HEADS = ['First packet', 'Originator', 'Responder', 'Proto', 'Name and words', 'State', 'Lasts', 'Packets', 'Bytes', 'Kept'];
const DETAILS_MAX = 2000;
// Least time between two looks at what sessions say, and the part of the time that they take on a page that is left open: one
// that nobody has touched for a while.
const LISTEN_MS = 1000, LISTEN_SHARE = 0.002, LEFT_OPEN_MS = 5000;
// After an answer that failed.
const AGAIN_MS = 5000;

export function table(place, app) {
  const head = el('div', { role: 'row', class: 'head', 'aria-rowindex': 1 }, ...HEADS.map((name) => el('span', { role: 'columnheader' }, name)));
  const spacer = el('div', { class: 'spacer', role: 'presentation' });
  const body = el('div', { class: 'rows', role: 'rowgroup' });
  const grid = el('div', { id: 'grid', role: 'grid', tabindex: 0, 'aria-label': 'Sessions', 'aria-colcount': HEADS.length },
    el('div', { role: 'rowgroup', class: 'heads' }, head), body, spacer);
  place.append(grid, el('p', { id: 'empty', hidden: true }));
  const made = [];
  const details = new Map();
  // What sessions said, by id; those that go on are asked for again when they have more packets.
  const spoken = new Map();
  // The session that the keys are at, which stays the same while the list changes.
  let cursor = '';
  let top = 0, chosen = -1, pending = 0, lookup = 0, listen = 0, listened = 0, rested = 0, touched = performance.now();

  // What does not change while one draws is asked once: the layout of the page is not computed for each row.
  let seen = 400;
  const visible = () => Math.max(1, Math.ceil(seen / ROW));
  const height = () => Math.min(HEIGHT_MAX, app.rows.length * ROW);
  const scrollMax = () => Math.max(1, height() - seen);
  const topMax = () => Math.max(0, app.rows.length - seen / ROW);

  function row() {
    const cells = HEADS.map(() => el('span', { role: 'gridcell' }));
    const bar = el('i', { class: 'kept' });
    const fill = el('b');
    bar.append(fill);
    cells[9].append(bar);
    const node = el('div', { role: 'row', class: 'row' }, ...cells);
    node.cells = cells;
    node.fill = fill;
    node.bar = bar;
    return node;
  }

  function put(cell, text, title) {
    if (cell.shown !== text) { cell.textContent = text; cell.shown = text; }
    if (cell.hint !== title) { cell.title = title || ''; cell.hint = title; }
  }

  function fill(node, at) {
    const { store } = app, index = app.rows[at];
    const { cells } = node;
    node.at = at;
    const end = (address, port) => {
      const text = store.addresses.text(address);
      return port && (store.protocol[index] === 6 || store.protocol[index] === 17 || store.protocol[index] === 132) ? `${text.includes(':') && store.addresses.kinds[address] === 6 ? `[${text}]` : text}:${port}` : text;
    };
    const packets = store.packets(index);
    const all = store.originatorBytes[index] + store.responderBytes[index];
    const known = details.get(store.id(index));
    put(cells[0], dayAndClock(store.first[index]), exactTime(store.first[index]));
    const [from, to] = [end(store.originator[index], store.originatorPort[index]), end(store.responder[index], store.responderPort[index])];
    put(cells[1], from, from);
    put(cells[2], to, to);
    put(cells[3], protocolName(store.protocol[index]), store.vlan[index] ? `VLAN ${store.vlan[index] - 1}` : app.end.interfaces[store.iface[index]]);
    const text = known ? words({ ...known, app: spoken.get(known.id)?.app || known.app }) : '';
    put(cells[4], text, text);
    put(cells[5], app.end.states[store.state[index]] || '');
    put(cells[6], span(store.last[index] - store.first[index]), `until ${exactTime(store.last[index])}`);
    put(cells[7], number(packets), `${exact(store.originatorPackets[index])} out, ${exact(store.responderPackets[index])} in`);
    put(cells[8], bytes(all), `${exact(store.originatorBytes[index])} out, ${exact(store.responderBytes[index])} in`);
    const share = packets ? Math.min(1, store.keptPackets[index] / packets) : 0;
    const unknown = store.flags[index] & 4;
    node.fill.style.width = `${Math.round(share * 100)}%`;
    node.bar.className = `kept${unknown ? ' unknown' : ''}${store.holes[index] ? ' holes' : ''}${store.flags[index] & 1 || share === 0 ? '' : ' headless'}`;
    const hint = unknown ? 'It is not known what of it is kept' : `${exact(store.keptPackets[index])} of ${exact(packets)} packets are kept, ${exact(store.keptBytes[index])} bytes${store.holes[index] ? '; parts are missing in between' : ''}${store.flags[index] & 1 || share === 0 ? '' : '; the first packet is gone'}`;
    if (node.bar.title !== hint) { node.bar.title = hint; cells[9].setAttribute('aria-label', hint); }
    const on = at === chosen;
    if (node.on !== on) { node.on = on; node.classList.toggle('chosen', on); node.setAttribute('aria-selected', on); }
    if (node.id !== `row-${at}`) { node.id = `row-${at}`; node.setAttribute('aria-rowindex', at + 2); }
  }

  function draw() {
    pending = 0;
    const count = Math.min(app.rows.length, visible() + 1);
    const first = Math.max(0, Math.min(Math.floor(top), app.rows.length - count));
    while (made.length < count) { const node = row(); made.push(node); body.append(node); }
    for (let i = 0; i < made.length; i += 1) {
      if (i < count) { if (made[i].hidden) made[i].hidden = false; fill(made[i], first + i); } else if (!made[i].hidden) made[i].hidden = true;
    }
    const shift = grid.scrollTop - (Math.min(top, topMax()) - first) * ROW;
    body.style.transform = `translateY(${Math.round(shift)}px)`;
    clearTimeout(lookup);
    lookup = setTimeout(lookUp, 150);
    clearTimeout(listen);
    const now = performance.now(), isLeftOpen = now - touched > LEFT_OPEN_MS;
    listen = setTimeout(listenIn, Math.max(400, (isLeftOpen ? rested : listened) - now));
  }

  function schedule() {
    if (!pending) pending = requestAnimationFrame(draw);
  }

  // The words of the protocols that the sessions in view spoke: the recorder reads their packets for this.
  async function listenIn() {
    const { store } = app;
    const rows = made.filter((node) => !node.hidden).map((node) => app.rows[node.at])
      .filter((index) => index !== undefined && store.keptPackets[index] && spoken.get(store.id(index))?.packets !== store.packets(index));
    if (!rows.length || document.hidden) return;
    if (spoken.size > DETAILS_MAX) spoken.clear();
    const since = Math.min(...rows.map((index) => store.first[index])), until = Math.max(...rows.map((index) => store.last[index]));
    const started = performance.now();
    const before = new Map(rows.map((index) => [store.id(index), spoken.get(store.id(index))]));
    rows.forEach((index) => spoken.set(store.id(index), { ...spoken.get(store.id(index)), packets: store.packets(index) }));
    try {
      await api.lines('GET /v1/flows', { id: rows.map((index) => store.id(index)), app: 'any', since: rfc3339(since), until: rfc3339(until + 1) },
        (flow) => { if (flow.app) spoken.set(flow.id, { ...spoken.get(flow.id), app: flow.app }); });
      if (!pending) pending = requestAnimationFrame(draw);
    } catch (error) {
      // Somebody else reads contents now: the next time.
      before.forEach((value, id) => { if (value) spoken.set(id, value); else spoken.delete(id); });
      listen = setTimeout(listenIn, AGAIN_MS);
    }
    listened = performance.now() + LISTEN_MS;
    rested = performance.now() + (performance.now() - started) / LISTEN_SHARE;
  }

  // Names of the rows in view, which the recorder reads from their first packets.
  async function lookUp() {
    const { store } = app;
    const rows = made.filter((node) => !node.hidden).map((node) => app.rows[node.at]).filter((index) => index !== undefined);
    // A name can come later than the first packets.
    const isKnown = (index) => { const known = details.get(store.id(index)); return known !== undefined && (!known || known.at === store.packets(index) || Boolean(words(known))); };
    const asked = rows.filter((index) => !isKnown(index)), ids = asked.map((index) => store.id(index));
    if (!ids.length || document.hidden) return;
    if (details.size > DETAILS_MAX) details.clear();
    const since = Math.min(...rows.map((index) => store.first[index])), until = Math.max(...rows.map((index) => store.last[index]));
    const at = new Map(asked.map((index) => [store.id(index), store.packets(index)]));
    ids.forEach((id) => { if (!details.get(id)) details.set(id, null); });
    try {
      await api.lines('GET /v1/flows', { id: ids, since: rfc3339(since), until: rfc3339(until + 1) }, (flow) => details.set(flow.id, Object.assign(flow, { at: at.get(flow.id) })));
      draw();
    } catch (error) {
      ids.forEach((id) => { if (!details.get(id)) details.delete(id); });
      lookup = setTimeout(lookUp, AGAIN_MS);
    }
  }

  function choose(at, open, isStep = true) {
    if (!app.rows.length) return;
    chosen = Math.max(0, Math.min(app.rows.length - 1, at));
    cursor = app.store.id(app.rows[chosen]);
    const full = Math.max(1, Math.floor(seen / ROW));
    if (chosen < top) goTo(chosen);
    else if (chosen >= top + full) goTo(chosen - full + 1);
    grid.setAttribute('aria-activedescendant', `row-${chosen}`);
    schedule();
    if (open) change({ session: cursor, packet: '' }, isStep);
  }

  function goTo(at) {
    top = Math.max(0, Math.min(topMax(), at));
    grid.scrollTop = topMax() ? (top / topMax()) * scrollMax() : 0;
    schedule();
  }

  for (const kind of ['keydown', 'pointerdown', 'wheel']) addEventListener(kind, () => { touched = performance.now(); }, { passive: true });
  grid.addEventListener('scroll', () => {
    const scaled = (grid.scrollTop / scrollMax()) * topMax();
    // The scrollbar of a long list has steps of several rows; what the keys have set is more exact.
    if (Math.abs(scaled - top) > topMax() / scrollMax() + 0.01) top = scaled;
    schedule();
  }, { passive: true });
  grid.addEventListener('wheel', (event) => {
    if (app.rows.length * ROW <= HEIGHT_MAX || event.ctrlKey) return;
    event.preventDefault();
    goTo(top + (event.deltaMode === 1 ? event.deltaY * 3 : event.deltaY / ROW));
  }, { passive: false });
  body.addEventListener('click', (event) => {
    const node = event.target.closest('.row');
    if (node) choose(node.at, true);
  });
  grid.addEventListener('keydown', (event) => {
    const page = Math.max(1, Math.floor(seen / ROW) - 1);
    const to = { ArrowDown: chosen + 1, ArrowUp: Math.max(0, chosen - 1), PageDown: chosen + page, PageUp: chosen - page, Home: 0, End: app.rows.length - 1 }[event.key];
    if (to !== undefined) choose(to, Boolean(state.session), false);
    else if (event.key === 'Enter' || event.key === ' ') choose(Math.max(0, chosen), true);
    else if (event.key === 'Escape') change({ session: '', tab: '', packet: '' });
    else return;
    event.preventDefault();
  });
  new ResizeObserver(() => { seen = Math.max(ROW, grid.clientHeight - ROW); schedule(); }).observe(grid);

  return {
    show() {
      spacer.style.height = `${height()}px`;
      grid.setAttribute('aria-rowcount', app.rows.length + 1);
      const at = state.session || cursor, wanted = at ? app.store.findId(at) : -1;
      chosen = wanted < 0 ? -1 : app.rows.indexOf(wanted);
      if (chosen >= 0) grid.setAttribute('aria-activedescendant', `row-${chosen}`); else grid.removeAttribute('aria-activedescendant');
      top = Math.min(top, topMax());
      const empty = document.getElementById('empty');
      empty.hidden = app.rows.length > 0;
      empty.textContent = app.store.count ? 'No session is left by the window, the terms and the search.' : 'No session is known yet.';
      schedule();
    },
  };
}

export function words(flow) {
  // The protocol that the name was read from.
  const of = flow.app?.name || (flow.server_name ? 'tls' : flow.http_host ? 'http' : flow.dns_question ? 'dns' : '');
  const parts = [[of, ...(flow.app?.words || [])].filter(Boolean).join(' '), flow.server_name, flow.http_host, flow.dns_question && `${flow.dns_question}${flow.dns_type ? ` (${flow.dns_type})` : ''}`];
  if (flow.process) parts.push(`by ${flow.process.name || flow.process.pid}`);
  return parts.filter(Boolean).join(' · ');
}
