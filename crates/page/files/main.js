// The page: it asks who is there, loads all sessions, and keeps the parts of the page up to date.

import * as api from './api.js';
import { alerts } from './alerts.js';
import { bar } from './bar.js';
import { detail } from './detail.js';
import { useLocal, microseconds, rfc3339, number } from './format.js';
import { hunt } from './hunt.js';
import { Store, sorted } from './store.js';
import { term, understand } from './search.js';
import { searchBox } from './searchbox.js';
import { state, change, onChange, terms, wrong } from './state.js';
import { strip } from './strip.js';
import { table } from './table.js';
import { talkers } from './talkers.js';
import { byId, say, tabs } from './ui.js';

// Time between two looks for new packets, and the part of the recorder's time that they may take.
const LOOK_MS = 1000, LOOK_MS_MAX = 5000;
const SHARE = 0.005;
// A list that takes long to narrow is shown less often while it grows.
const SHOW_SHARE = 0.1;
// What of old sessions is kept changes without new packets of theirs: all are read again after this time.
const RELOAD_MS = 300000;
// Packets of several workers can be a little out of order.
const OVERLAP_US = 2000000;
// Sessions that a name or a process is asked for.
const FOUND_MAX = 100000;

export const app = {
  store: new Store(), rows: new Uint32Array(0), end: /** @type {import('../types/api.d.ts').ColumnsEnd} */ ({ interfaces: [], states: [] }), visitor: /** @type {import('../types/api.d.ts').PageVisitor} */ (null), live: true, found: null, understood: understand(state.q),
  loaded: 0, error: '',
};
const parts = {};
let asOf = '', looking = false, timer = 0, loadedAt = 0, wait = LOOK_MS, failures = 0, shownAt = 0, showCost = 0, later = 0;

export const window_ = () => ({ since: state.since || undefined, until: state.until || undefined });

// All rows in the order of the list. It stays until sessions come or change, so that narrowing does not sort.
let order = { of: '', rows: new Uint32Array(0) };

function ordered() {
  const { store } = app, { sort } = state;
  const of = `${sort} ${app.loaded} ${asOf} ${store.count}`;
  if (order.of === of) return order.rows;
  const amount = (a, b) => Float64Array.from({ length: store.count }, (_, row) => a[row] + b[row]);
  const key = sort === 'last' ? store.last : sort === 'bytes' ? amount(store.originatorBytes, store.responderBytes)
    : sort === 'packets' ? amount(store.originatorPackets, store.responderPackets)
      : sort === 'duration' ? Float64Array.from({ length: store.count }, (_, row) => store.last[row] - store.first[row]) : store.first;
  const rows = new Uint32Array(store.count);
  for (let row = 0; row < rows.length; row += 1) rows[row] = row;
  order = { of, rows: sorted(rows, key, sort !== 'start') };
  return order.rows;
}

// Room for the rows that are shown, and for those that come next: new arrays of megabytes would wake the garbage collector.
const rooms = [new Uint32Array(0), new Uint32Array(0)];

// The rows that the window, the terms and the search leave.
export function narrow() {
  const { store, found, understood } = app;
  const since = state.since ? microseconds(state.since) : -Infinity, until = state.until ? microseconds(state.until) : Infinity;
  const tests = [];
  for (const text of terms('only')) { const one = term(text); if (one) tests.push({ ...one, negative: false }); }
  for (const text of terms('not')) { const one = term(text); if (one) tests.push({ ...one, negative: true }); }
  if (understood.kind === 'terms') tests.push(...understood.terms);
  const decide = tests.map((one) => ({ negative: Boolean(one.negative), is: one.test(store, app.end.interfaces) }));
  const server = ['name', 'process', 'container', 'expression'].includes(understood.kind);
  rooms.reverse();
  if (rooms[0].length < store.count) rooms[0] = new Uint32Array(Math.ceil(store.count * 1.25));
  const [kept] = rooms;
  let count = 0;
  const { first, last } = store;
  const rows = ordered();
  next: for (let at = 0; at < rows.length; at += 1) {
    const row = rows[at];
    if (last[row] < since || first[row] > until) continue;
    if (server && !(found && found.has(row))) continue;
    for (let i = 0; i < decide.length; i += 1) if (Boolean(decide[i].is(row)) === decide[i].negative) continue next;
    kept[count] = row;
    count += 1;
  }
  app.rows = kept.subarray(0, count);
}

function show() {
  clearTimeout(later);
  later = 0;
  shownAt = performance.now();
  narrow();
  parts.table?.show();
  parts.talkers?.show();
  parts.search?.show();
  parts.detail?.news();
  showCost = performance.now() - shownAt;
}

function showSoon() {
  if (later) return;
  later = setTimeout(show, Math.max(0, showCost / SHOW_SHARE - (performance.now() - shownAt)));
}

// Asks the recorder for the sessions that a name or an expression means.
async function find(since) {
  const { understood, store } = app;
  if (understood.kind === 'none' || understood.kind === 'terms') {
    app.found = null;
    app.error = '';
    return;
  }
  const asked = state.q, found = since && app.found ? app.found : new Set();
  let listed = 0;
  try {
    if (understood.kind !== 'expression') {
      await api.lines('GET /v1/flows', { name: understood.name, process: understood.process, container: understood.container, since, limit: FOUND_MAX }, (flow) => {
        listed += 1;
        const row = store.findId(flow.id);
        if (row >= 0) found.add(row);
      });
    } else {
      const answer = await api.get('GET /v1/columns', { filter: understood.expression, since });
      const some = new Store();
      some.read(await answer.arrayBuffer());
      for (let i = 0; i < some.count; i += 1) {
        const row = store.find(some.idLow[i], some.idHigh[i]);
        if (row >= 0) found.add(row);
      }
    }
    if (asked !== state.q) return;
    app.error = listed >= FOUND_MAX ? `Only the newest ${number(listed)} of them were asked for: choose a window.` : '';
  } catch (error) {
    if (api.isGone(error) || api.hasEnded(error)) throw error;
    if (asked !== state.q) return;
    // Nothing that matches is an answer too.
    app.error = error.status === 404 ? '' : error.message;
    if (error.status === 404) app.note = error.message;
  }
  if (asked === state.q) app.found = found;
}

async function load() {
  const started = performance.now();
  const answer = await api.get('GET /v1/columns', {});
  const buffer = await answer.arrayBuffer();
  const store = new Store();
  const end = store.read(buffer);
  app.store = store;
  app.end = end;
  app.loaded += 1;
  asOf = end.as_of;
  loadedAt = performance.now();
  await find();
  show();
  wait = Math.max(LOOK_MS, Math.min(performance.now() - started, 5000));
  say(`${number(store.count)} sessions`);
}

// Sessions that had packets since the last look. A laptop that slept asks for all that came meanwhile.
async function look() {
  const { store } = app;
  const since = asOf ? rfc3339(Math.max(0, microseconds(asOf) - OVERLAP_US)) : undefined;
  const started = performance.now();
  const answer = await api.get('GET /v1/columns', { since }, api.soon());
  const buffer = await answer.arrayBuffer();
  // An upper bound of what it cost the recorder.
  const took = performance.now() - started;
  const end = store.read(buffer);
  app.end = end;
  wait = Math.max(LOOK_MS, Math.min(took / SHARE, LOOK_MS_MAX));
  if (end.as_of === asOf && !end.sessions) return;
  if (end.as_of !== asOf) {
    await find(since);
    asOf = end.as_of || asOf;
    showSoon();
  }
}

async function tick() {
  clearTimeout(timer);
  if (looking) return;
  looking = true;
  try {
    if (!document.hidden) {
      // Somebody who may see the status alone sees whether the recorder records.
      const lists = app.visitor.roles.includes('flows');
      if (!lists) await parts.bar.refresh();
      else {
        if (!app.loaded || performance.now() - loadedAt > RELOAD_MS) await load();
        else if (app.live) await look();
        await parts.bar.refresh();
        if (app.live) await parts.strip.refresh();
      }
      trouble(lists ? wrong.text : 'Your roles show the status alone: sessions need the role flows.');
      failures = 0;
    }
  } catch (error) {
    failures += 1;
    wait = Math.min(30000, LOOK_MS * 2 ** Math.min(failures, 5));
    if (api.hasEnded(error)) return ended(error);
    trouble(api.isGone(error) ? 'The recorder does not answer. The page tries again; what it shows is what it knew last.' : error.message);
  } finally {
    looking = false;
  }
  timer = setTimeout(tick, wait);
}

export function trouble(text) {
  const place = byId('trouble');
  if (place.textContent === text) return;
  place.textContent = text;
  place.hidden = !text;
}

function ended(error) {
  clearTimeout(timer);
  document.body.classList.add('ended');
  byId('recording').textContent = 'Not connected';
  trouble(`${error.message}. On the recorder's host: sudo retrocap page`);
  api.onRenewed(() => {
    api.onRenewed(() => {});
    document.body.classList.remove('ended');
    trouble('');
    app.loaded = 0;
    enter();
  });
}

export function setLive(on) {
  app.live = on;
  say(on ? 'Following new traffic' : 'Paused');
  if (on) tick();
}

function view() {
  const current = ['hunt', 'alerts'].includes(state.view) ? state.view : 'sessions';
  byId('list').hidden = current !== 'sessions';
  byId('hunt').hidden = current !== 'hunt';
  byId('alerts').hidden = current !== 'alerts';
  parts.tabs(current);
}

async function changed(keys) {
  const has = (...names) => names.some((name) => keys.has(name));
  if (has('zone')) useLocal(state.zone === 'local');
  if (has('q')) {
    app.understood = understand(state.q);
    app.found = null;
    app.note = '';
    parts.search.show('asking');
    await find().catch((error) => trouble(error.message));
  }
  if (has('view')) view();
  if (has('since', 'until', 'q', 'only', 'not', 'sort', 'zone', 'by')) show();
  if (has('since', 'until', 'q', 'zone')) parts.strip.reset();
  if (has('session', 'zone')) parts.detail.show();
  if (has('zone')) parts.bar.draw();
}

async function start() {
  useLocal(state.zone === 'local');
  parts.bar = bar(byId('bar'), app);
  parts.strip = strip(byId('strip'), app);
  parts.search = searchBox(byId('search'), app);
  parts.table = table(byId('list'), app);
  parts.talkers = talkers(byId('talkers'), app);
  parts.detail = detail(byId('session'), app);
  parts.tabs = tabs(byId('tabs'), [['sessions', 'Sessions'], ['hunt', 'Hunt'], ['alerts', 'Alerts']], (key) => change({ view: key === 'sessions' ? '' : key }));
  hunt(byId('hunt'), app);
  parts.alerts = alerts(byId('alerts'), app);
  view();
  onChange(changed);
  enter();
}

async function enter() {
  try {
    app.visitor = await api.enter();
  } catch (error) {
    if (api.hasEnded(error)) return ended(error);
    trouble(api.isGone(error) ? 'The recorder does not answer.' : error.message);
    timer = setTimeout(enter, 3000);
    return;
  }
  document.title = `Retrocap on ${app.visitor.host}`;
  parts.bar.draw();
  await tick();
  if (state.session) parts.detail.show();
  parts.alerts.show();
}

addEventListener('visibilitychange', () => { if (!document.hidden && app.visitor) tick(); });
addEventListener('online', () => { if (app.visitor) tick(); });
start();
