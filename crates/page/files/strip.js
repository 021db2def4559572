// Traffic over time. Dragging over it, or its buttons, sets the window for everything below.

import * as api from './api.js';
import { bytes, clock, counted, dayAndClock, exact, exactTime, microseconds, rfc3339, span } from './format.js';
import { change, state } from './state.js';
import { button, el, say } from './ui.js';

const HEIGHT = 96, SPANS = 600, EVERY_MS = 4000;

export function strip(place, app) {
  const canvas = el('canvas', { id: 'timeline', tabindex: 0, role: 'img', 'aria-label': 'Traffic over time' });
  const words = el('p', { id: 'window' });
  const since = el('input', { id: 'since', placeholder: 'since: 10m, 2026-11-22 10:00', 'aria-label': 'Since' });
  const until = el('input', { id: 'until', placeholder: 'until', 'aria-label': 'Until' });
  const form = el('form', { class: 'controls' },
    button('−', () => zoom(2), { title: 'Zoom out', 'aria-label': 'Zoom out' }), button('+', () => zoom(0.5), { title: 'Zoom in', 'aria-label': 'Zoom in' }),
    button('◀', () => pan(-0.5), { 'aria-label': 'Earlier' }), button('▶', () => pan(0.5), { 'aria-label': 'Later' }),
    button('10 min', () => last(600)), button('1 h', () => last(3600)), button('Everything', () => change({ since: '', until: '' }), { id: 'everything' }),
    since, until, el('button', { type: 'submit' }, 'Set'));
  const hints = { cover: 'Height: the share of sessions that began then. The darker, the more of each is kept: first packet, first kB, first 10 kB, everything', whole: 'Every packet since then is kept' };
  const mark = (name, text) => el('li', { title: hints[name] }, el('i', { class: `swatch ${name}` }), text);
  const legend = el('ul', { id: 'legend', 'aria-label': 'Legend of the time strip' }, mark('bytes', 'bytes'), mark('starts', 'session starts'),
    mark('cover', 'kept of these'), mark('whole', 'all kept'), mark('lost', 'gap or loss'));
  place.append(canvas, el('div', { class: 'under' }, words, legend), form);
  /** @type {import('../types/api.d.ts').Timeline} */
  let data = null;
  let asked = -EVERY_MS, wait = EVERY_MS, drag = null, hover = null, reach = null;

  form.addEventListener('submit', (event) => {
    event.preventDefault();
    const from = read(since.value), to = read(until.value);
    if (Number.isNaN(from) || Number.isNaN(to)) return say('This is no time: try 10m, or 2026-11-22 10:00');
    change({ since: since.value ? rfc3339(from) : '', until: until.value ? rfc3339(to) : '' });
  });

  // A time as somebody writes it, in UTC unless it says otherwise; a span counts back from the newest packet.
  function read(text) {
    if (!text.trim()) return 0;
    const back = /^(\d+(?:\.\d+)?)\s*(s|m|min|h|d|days?)$/.exec(text.trim());
    if (back) return end() - Number(back[1]) * { s: 1e6, m: 6e7, min: 6e7, h: 3.6e9, d: 8.64e10, day: 8.64e10, days: 8.64e10 }[back[2]];
    const hasZone = /(Z|[+-]\d\d:?\d\d)$/.test(text.trim());
    return Date.parse(hasZone ? text.trim() : `${text.trim().replace(' ', 'T')}${state.zone === 'local' ? '' : 'Z'}`) * 1000;
  }

  const begin = () => (data ? microseconds(data.since) : 0), end = () => (data ? microseconds(data.until) : 0);
  const full = () => reach || [begin(), end()];

  function set(from, to) {
    if (to - from < 1000) to = from + 1000;
    change({ since: rfc3339(Math.max(0, from)), until: rfc3339(to) });
  }
  function zoom(by) {
    const middle = (begin() + end()) / 2, half = ((end() - begin()) * by) / 2;
    if (by > 1 && half * 2 >= full()[1] - full()[0]) return change({ since: '', until: '' });
    set(middle - half, middle + half);
  }
  function pan(by) {
    const step = (end() - begin()) * by;
    set(begin() + step, end() + step);
  }
  function last(seconds) {
    set(full()[1] - seconds * 1e6, full()[1] + 1e9);
  }

  async function refresh(now) {
    if (!now && performance.now() - asked < wait) return;
    asked = performance.now();
    const filter = app.understood.kind === 'expression' ? app.understood.expression : undefined;
    // An expression that is asked of all packets costs much more than the sums; then the strip shows everything.
    data = await api.json('GET /v1/timeline', { spans: SPANS, since: state.since, until: state.until, filter: now ? filter : undefined });
    wait = Math.max(EVERY_MS, Math.min((performance.now() - asked) * 400, 60000));
    if (!state.since && !state.until) reach = [begin(), end()];
    draw();
  }

  function colour(name) {
    return getComputedStyle(canvas).getPropertyValue(name);
  }

  function draw() {
    if (!data?.bytes?.length) {
      words.textContent = 'Nothing is recorded yet.';
      return;
    }
    const scale = devicePixelRatio || 1, width = canvas.clientWidth || 800;
    canvas.width = width * scale;
    canvas.height = HEIGHT * scale;
    const paint = canvas.getContext('2d');
    paint.scale(scale, scale);
    const count = data.bytes.length, step = width / count, floor = HEIGHT - 16;
    const most = Math.max(1, ...data.bytes), mostSessions = Math.max(1, ...data.sessions);
    const shades = [['first_packet', '--cover-1'], ['first_kb', '--cover-2'], ['first_10kb', '--cover-3'], ['whole', '--cover-4']];
    for (const [key, name] of shades) {
      paint.fillStyle = colour(name);
      for (let i = 0; i < count; i += 1) {
        if (!data.sessions[i]) continue;
        const height = floor * (data[key][i] / data.sessions[i]);
        paint.fillRect(i * step, floor - height, step + 0.5, height);
      }
    }
    paint.fillStyle = colour('--bytes');
    for (let i = 0; i < count; i += 1) {
      const height = data.bytes[i] ? Math.max(1, (floor - 6) * Math.sqrt(data.bytes[i] / most)) : 0;
      paint.fillRect(i * step, floor - height, Math.max(1, step - 0.5), height);
    }
    paint.strokeStyle = colour('--starts');
    paint.lineWidth = 1.5;
    paint.beginPath();
    for (let i = 0; i < count; i += 1) {
      const y = floor - (floor - 6) * Math.sqrt(data.sessions[i] / mostSessions);
      if (i) paint.lineTo((i + 0.5) * step, y); else paint.moveTo(step / 2, y);
    }
    paint.stroke();
    const x = (us) => ((us - begin()) / (end() - begin())) * width;
    paint.fillStyle = colour('--lost');
    for (const gap of data.gaps) paint.fillRect(x(microseconds(gap.since)), 0, Math.max(2, x(microseconds(gap.until)) - x(microseconds(gap.since))), 5);
    for (const drop of data.drops) paint.fillRect(x(microseconds(drop.since)), 6, Math.max(2, x(microseconds(drop.until)) - x(microseconds(drop.since))), 5);
    if (data.whole_since) {
      paint.fillStyle = colour('--whole');
      const from = Math.max(0, x(microseconds(data.whole_since)));
      paint.fillRect(from, floor, width - from, 3);
    }
    paint.fillStyle = colour('--ink');
    paint.font = '11px system-ui, sans-serif';
    // The line below has the day; a short time needs parts of a second.
    const reaches = end() - begin();
    const label = (at) => (reaches < 2e7 ? `${clock(at)}.${String(Math.floor((at % 1e6) / 1e3)).padStart(3, '0')}` : reaches < 8.64e10 ? clock(at) : dayAndClock(at));
    const marks = Math.max(2, Math.floor(width / 150));
    for (let i = 0; i < marks; i += 1) {
      const at = begin() + ((end() - begin()) * i) / marks;
      paint.fillText(label(at), (width * i) / marks + 2, HEIGHT - 2);
    }
    if (drag && drag.to !== undefined) {
      paint.fillStyle = colour('--chosen');
      paint.fillRect(Math.min(drag.from, drag.to), 0, Math.abs(drag.to - drag.from), floor);
    }
    describe();
  }

  function describe() {
    const all = data.bytes.reduce((sum, value) => sum + value, 0), sessions = data.sessions.reduce((sum, value) => sum + value, 0);
    let text = `${exactTime(begin()).slice(0, 19)} to ${exactTime(end()).slice(0, 19)} ${exactTime(end()).split(' ').pop()} (${span(end() - begin())}): ${bytes(all)}, ${counted(sessions, 'session')} began`;
    if (data.gaps.length) text += `, ${counted(data.gaps.length, 'gap')} in the recording`;
    const lost = data.drops.reduce((sum, drop) => sum + drop.packets, 0);
    if (lost) text += `, ${counted(lost, 'packet')} lost`;
    canvas.setAttribute('aria-label', `Traffic over time. ${text}`);
    if (hover !== null) {
      const i = Math.min(data.bytes.length - 1, Math.max(0, Math.floor((hover / canvas.clientWidth) * data.bytes.length)));
      const of = (key) => (data.sessions[i] ? `${Math.round((100 * data[key][i]) / data.sessions[i])} %` : '–');
      text = `${exactTime(begin() + (i * data.span_ns) / 1000)}: ${exact(data.bytes[i])} bytes, ${exact(data.sessions[i])} sessions began; first packet kept ${of('first_packet')}, first kB ${of('first_kb')}, whole ${of('whole')}`;
    }
    words.textContent = text;
  }

  canvas.addEventListener('pointerdown', (event) => {
    drag = { from: event.offsetX };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener('pointermove', (event) => {
    hover = event.offsetX;
    if (drag) drag.to = event.offsetX;
    if (data) draw();
  });
  canvas.addEventListener('pointerleave', () => { hover = null; if (data) describe(); });
  canvas.addEventListener('pointerup', () => {
    const done = drag;
    drag = null;
    if (!done || done.to === undefined || Math.abs(done.to - done.from) < 4) return;
    const at = (x) => begin() + ((end() - begin()) * x) / canvas.clientWidth;
    set(at(Math.min(done.from, done.to)), at(Math.max(done.from, done.to)));
  });
  canvas.addEventListener('dblclick', () => change({ since: '', until: '' }));
  canvas.addEventListener('wheel', (event) => {
    if (!event.ctrlKey && !event.shiftKey) return;
    event.preventDefault();
    zoom(event.deltaY > 0 ? 1.5 : 0.67);
  }, { passive: false });
  canvas.addEventListener('keydown', (event) => {
    const act = { '+': () => zoom(0.5), '=': () => zoom(0.5), '-': () => zoom(2), ArrowLeft: () => pan(-0.5), ArrowRight: () => pan(0.5), Home: () => change({ since: '', until: '' }) }[event.key];
    if (act) { act(); event.preventDefault(); }
  });
  new ResizeObserver(() => { if (data) draw(); }).observe(canvas);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => { if (data) draw(); });

  return {
    refresh,
    reset() {
      since.value = state.since ? state.since.replace('T', ' ').slice(0, 19) : '';
      until.value = state.until ? state.until.replace('T', ' ').slice(0, 19) : '';
      refresh(true).catch((error) => { words.textContent = error.message; });
    },
  };
}
