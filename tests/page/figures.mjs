// Measures the page in Chromium: scripts/page-figures. It feeds a recorder of its own with a million sessions.

import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { chromium } from 'playwright-core';

const program = process.env.RETROCAP, sessions = Number(process.env.SESSIONS || 1e6), memory = process.env.MEMORY || '1G';
const folder = mkdtempSync(`${tmpdir()}/retrocap-page-`);
const median = (list) => [...list].sort((a, b) => a - b)[Math.floor(list.length / 2)];
const part = (list, share) => [...list].sort((a, b) => a - b)[Math.min(list.length - 1, Math.floor(list.length * share))];
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const ask = (socket, ...words) => execFileSync(program, [...words, '--socket', socket], { stdio: ['ignore', 'pipe', 'ignore'], maxBuffer: 1 << 30 }).toString();
const show = (name, value) => console.log(`${name.padEnd(62)} ${value}`);

const cpu = (pid) => {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100;
};

// One packet each of so many UDP sessions, over an hour. Those of a full history are hard to compress, as real ones are: their
// ports and lengths have no pattern.
async function feed(into, count, plain) {
  const header = Buffer.alloc(24);
  header.writeUInt32LE(0xa1b23c4d, 0);
  header.writeUInt16LE(2, 4);
  header.writeUInt16LE(4, 6);
  header.writeUInt32LE(262144, 16);
  header.writeUInt32LE(1, 20);
  into.write(header);
  const start = Math.floor(Date.now() / 1000) - 3600;
  for (let at = 0; at < count;) {
    const some = Math.min(10000, count - at), batch = Buffer.alloc(some * 102);
    for (let i = 0; i < some; i += 1, at += 1) {
      const packet = i * 102, time = (at / count) * 3600, mixed = Math.imul(at, 0x9e3779b1) >>> 0;
      batch.writeUInt32LE(start + Math.floor(time), packet);
      batch.writeUInt32LE(Math.floor((time % 1) * 1e9), packet + 4);
      batch.writeUInt32LE(86, packet + 8);
      batch.writeUInt32LE(plain ? 86 : 86 + (mixed % 1400), packet + 12);
      batch.set([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, 0, 72, 0, 0, 0x40, 0, 64, 17, 0, 0], packet + 16);
      batch.set([10, 1, at % 16, (at >> 4) % 250, 192, 0, 2, at % 200], packet + 42);
      batch.writeUInt16BE(1024 + (plain ? Math.floor(at / 4000) : mixed >>> 12) % 60000, packet + 50);
      batch.writeUInt16BE([53, 443, 123, 5353][at % 4], packet + 52);
      batch.writeUInt16BE(52, packet + 54);
    }
    if (!into.write(batch)) await new Promise((resolve) => into.once('drain', resolve));
  }
  into.end();
}

// A recorder with a socket of its own that has read so many sessions, and its status.
async function record(name, count, plain) {
  const socket = `${folder}/${name}`;
  const recorder = spawn(program, ['run', '--replay', '-', '--speed', 'max', '-m', memory, '--socket', socket, '--no-drop-privileges', '--audit', 'off'], { stdio: ['pipe', 'ignore', 'ignore'] });
  await feed(recorder.stdin, count, plain);
  let status = { packets: { received: 0 } };
  for (let i = 0; i < 1200 && status.packets.received < count; i += 1) {
    await sleep(200);
    try { status = JSON.parse(ask(socket, 'status', '--json')); } catch { /* it does not listen yet */ }
  }
  return { recorder, socket, status };
}

// The timeline of a history whose packets and archive of sessions have overwritten their oldest.
async function fullHistory() {
  const { recorder, socket, status } = await record('full', Number(process.env.FULL || 14 * sessions), false);
  try {
    show(`a full history of ${memory}: sessions received and known`, `${status.packets.received} ${status.sessions.live + status.sessions.ledger}`);
    const times = [], before = cpu(recorder.pid);
    for (let i = 0; i < 9; i += 1) {
      const out = execFileSync('curl', ['-sS', '-o', '/dev/null', '-w', '%{time_total} %{http_code}', '--unix-socket', socket, 'http://localhost/v1/timeline?spans=600']).toString().split(' ');
      if (out[1] !== '200') throw new Error(`the timeline was answered with ${out[1]}`);
      times.push(Number(out[0]) * 1000);
    }
    show('its timeline, ms: first, median and longest of 9 (at most 100)', `${Math.round(times[0])} ${Math.round(median(times))} ${Math.round(Math.max(...times))}`);
    show('  processor time of the recorder for each, ms', Math.round((1000 * (cpu(recorder.pid) - before)) / 9));
  } finally {
    recorder.kill();
    await sleep(1000);
  }
}

await fullHistory();
const { recorder, socket, status: got } = await record('socket', sessions, true);
try {
  show('sessions that the recorder got', got.packets.received);
  const url = JSON.parse(ask(socket, 'page', '--json')).url.replace(...(process.env.RETROCAP_REWRITE || 'x x').split(' '));
  const browser = await chromium.launch({ executablePath: process.env.RETROCAP_CHROMIUM || '/usr/bin/chromium', args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update', '--no-first-run'] });
  const context = await browser.newContext({ viewport: { width: 1280, height: 720 } });
  const page = await context.newPage();
  const visits = [];
  page.on('response', (response) => {
    if (/^\/(page\/.*)?$/.test(new URL(response.url()).pathname)) visits.push(response.request().sizes());
  });
  const begun = Date.now();
  await page.goto(url);
  await page.locator('.row:not([hidden])').first().waitFor({ timeout: 120000 });
  show('from the first request to the list of all sessions, ms', Date.now() - begun);
  const paint = await page.evaluate(() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime);
  show('first paint, ms (at most 200)', Math.round(paint));
  const visit = (await Promise.all(visits)).reduce((sum, sizes) => sum + sizes.responseBodySize, 0);
  show(`first visit, bytes compressed of ${visits.length} files (at most 100,000)`, visit);
  // The same again, measured inside of the page.
  const inside = await page.evaluate(async () => {
    const token = sessionStorage.getItem('retrocap-token'), headers = { Authorization: `Bearer ${token}` };
    const { Store, sorted } = await import('/page/store.js');
    const get = async (target) => (await fetch(target, { headers, cache: 'no-store' })).arrayBuffer();
    const loads = [], narrows = [], timelines = [];
    let bytes = 0, store = null;
    for (let i = 0; i < 5; i += 1) {
      const start = performance.now();
      const buffer = await get('/v1/columns');
      const got = performance.now();
      bytes = buffer.byteLength;
      store = new Store();
      store.read(buffer);
      const read = performance.now();
      const rows = Uint32Array.from({ length: store.count }, (_, row) => row);
      sorted(rows, store.first, true);
      loads.push([performance.now() - start, got - start, read - got, performance.now() - read]);
    }
    for (let i = 0; i < 9; i += 1) {
      const start = performance.now();
      await get('/v1/timeline?spans=600');
      timelines.push(performance.now() - start);
    }
    const { app, narrow } = await import('/page/main.js');
    const { understand } = await import('/page/search.js');
    for (const text of ['10.1.3.7', '192.0.2.0/28', ':443', 'udp -10.1.3.7', '10.1.3.7 :53']) {
      app.understood = understand(text);
      for (let i = 0; i < 3; i += 1) {
        const start = performance.now();
        narrow();
        narrows.push([performance.now() - start, text, app.rows.length]);
      }
    }
    app.understood = understand('');
    narrow();
    return { loads, narrows, timelines, bytes, count: store.count };
  });
  const total = inside.loads.map(([all]) => all);
  show(`${inside.count} sessions ready, ms, median of 5 (at most 1000)`, Math.round(median(total)));
  show('  of that: answer, reading, sorting', inside.loads.map(([, a, b, c]) => `${Math.round(a)}+${Math.round(b)}+${Math.round(c)}`).join(' '));
  show('  bytes of the answer', inside.bytes);
  show('narrowed, ms, median and longest of 15 (at most 50)', `${Math.round(median(inside.narrows.map(([ms]) => ms)))} ${Math.round(Math.max(...inside.narrows.map(([ms]) => ms)))}`);
  show('timeline, ms, median of 9 (at most 100)', Math.round(median(inside.timelines)));
  // Scrolling: time between frames, and time that a frame's script takes.
  const frames = await page.evaluate(async () => {
    const grid = document.getElementById('grid'), between = [], drawing = [];
    const step = grid.scrollHeight / 400;
    const ask = window.requestAnimationFrame.bind(window);
    window.requestAnimationFrame = (then) => ask((at) => { const start = performance.now(); then(at); drawing.push(performance.now() - start); });
    let before = await new Promise((resolve) => ask(resolve));
    for (let i = 0; i < 300; i += 1) {
      grid.scrollTop += step;
      const now = await new Promise((resolve) => ask(resolve));
      between.push(now - before);
      before = now;
    }
    window.requestAnimationFrame = ask;
    return { between: between.slice(5), drawing };
  });
  show('scrolling, ms a frame, 95th percentile (below 20)', part(frames.between, 0.95).toFixed(1));
  show('  draw time, ms, 95th percentile (below 8)', part(frames.drawing, 0.95).toFixed(1));
  const seconds = 30, cpuBefore = cpu(recorder.pid);
  await page.waitForTimeout(seconds * 1000);
  show(`a page left open, % of a core over ${seconds} s (below 1)`, ((100 * (cpu(recorder.pid) - cpuBefore)) / seconds).toFixed(2));
  const status = JSON.parse(ask(socket, 'status', '--json'));
  show('packets of the recorder afterwards, the page’s own left out', status.packets.received);
  await browser.close();
} finally {
  recorder.kill();
  await sleep(500);
  rmSync(folder, { recursive: true, force: true });
}
