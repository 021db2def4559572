// One session: what is known of it, its packets, what was said, and its files; and what can be done with it.

import * as api from './api.js';
import { bytes, counted, decode64, exact, exactTime, hexDump, microseconds, number, printable, rfc3339, span } from './format.js';
import { dissect, layers, treeOf } from './packet.js';
import { facts, said } from './said.js';
import { change, state } from './state.js';
import { words } from './table.js';
import { button, byId, el, panels, save, say } from './ui.js';

const PACKETS = 500, PASS_MS = 150;
// The archive rounds times to the millisecond.
const AROUND_US = 1000;
const HOST_US = 300e6;
const IMAGES = /^image\/(png|jpeg|gif|webp|bmp)$/;

const bracketed = (end) => (end.ip?.includes(':') ? `[${end.ip}]` : end.ip);
const endpoint = (end, proto) => (end.ip ? (hasPorts(proto) ? `${bracketed(end)}:${end.port}` : bracketed(end)) : end.mac);
const hasPorts = (proto) => ['tcp', 'udp', 'sctp'].includes(proto);

/** @import { Flow, Object as FileObject, PacketLine, StreamPart } from '../types/api.d.ts' */

// The parameters that select the packets of a session.
function selection(/** @type {Partial<Flow>} */ flow) {
  const since = rfc3339(Math.max(0, microseconds(flow.first) - AROUND_US)), until = rfc3339(microseconds(flow.last) + AROUND_US);
  if (!flow.originator.ip) {
    return { filter: `ether host ${flow.originator.mac} and ether host ${flow.responder.mac}`, since, until, interface: flow.interface };
  }
  const proto = hasPorts(flow.proto) ? ` ${flow.proto}` : '';
  // The same endpoints may talk on several VLANs.
  const filter = flow.vlan === null ? undefined : `vlan ${flow.vlan}`;
  return { filter, flow: `${endpoint(flow.originator, flow.proto)} ${endpoint(flow.responder, flow.proto)}${proto}`, since, until, interface: flow.interface };
}

// An expression for a pin.
function expression(/** @type {Partial<Flow>} */ flow) {
  if (!flow.originator.ip) return `ether host ${flow.originator.mac} and ether host ${flow.responder.mac}`;
  const ends = `host ${flow.originator.ip} and host ${flow.responder.ip}`;
  return hasPorts(flow.proto) ? `${flow.proto} and ${ends} and port ${flow.originator.port} and port ${flow.responder.port}` : ends;
}

const quoted = (text) => `'${String(text).replaceAll("'", "'\\''")}'`;

export function command(parameters) {
  const flags = Object.entries(parameters).filter(([key, value]) => value && key !== 'filter').map(([key, value]) => `--${key} ${quoted(value)}`);
  return ['retrocap get', ...flags, '-w session.pcapng', parameters.filter ? quoted(parameters.filter) : ''].filter(Boolean).join(' ');
}

function curl(app, target) {
  return `curl --unix-socket ${quoted(app.visitor?.socket || '/run/retrocap/retrocap.sock')} ${quoted(`http://localhost${target}`)} -o session.pcapng`;
}

export function detail(place, app) {
  let shown = '', serial = 0, seen = NaN, waiting = 0;

  async function copy(text, what) {
    const box = el('textarea', { readonly: true, rows: 3, 'aria-label': what }, text);
    byId('given').replaceChildren(box);
    box.select();
    try {
      await navigator.clipboard.writeText(text);
      say(`${what} is copied`);
    } catch {
      say(`${what} is selected`);
    }
  }

  async function download(parameters, name) {
    const given = byId('given');
    given.replaceChildren('Reading …');
    try {
      const answer = await api.get('GET /v1/packets', parameters);
      const blob = await answer.blob();
      save(blob, name);
      given.replaceChildren(`${name}: ${bytes(blob.size)}. Its comments say what is missing.`);
    } catch (error) {
      given.replaceChildren(error.message);
    }
  }

  async function pin(flow) {
    const length = el('select', { 'aria-label': 'For how long' }, ...[['3600', '1 h'], ['7200', '2 h'], ['86400', '1 day'], ['604800', '7 days']].map(([value, text]) => el('option', { value }, text)));
    const given = byId('given');
    given.replaceChildren('Keep all its packets for ', length, ' ', button('Pin', async () => {
      try {
        const made = await api.post('POST /v1/pins', { filter: expression(flow), for_s: Number(length.value) });
        dispatchEvent(new Event('pinned'));
        given.replaceChildren(`Pin ${made.id}: ${number(made.kept_packets)} packets are there, kept until ${exactTime(microseconds(made.until))}.`);
      } catch (error) {
        given.replaceChildren(error.message);
      }
    }, { id: 'pin-now' }));
    length.focus();
  }

  function around(flow, end) {
    return { address: end.ip, since: rfc3339(Math.max(0, microseconds(flow.first) - HOST_US)), until: rfc3339(microseconds(flow.last) + HOST_US) };
  }

  function buttons(flow) {
    const parameters = selection(flow), target = api.target('GET /v1/packets', parameters);
    const may = (role) => app.visitor?.roles.includes(role);
    const host = (end) => (end.ip ? button(`${end.ip} ± 5 min`, () => download(around(flow, end), `${end.ip.replaceAll(':', '-')}.pcapng`), { class: 'host', title: 'All packets of this host around the session' }) : null);
    return el('div', { class: 'controls' },
      may('packets') ? [button('pcapng', () => download(parameters, `session-${flow.id}.pcapng`), { id: 'pcapng' })] : [],
      may('pin') ? [button('Pin …', () => pin(flow), { id: 'pin' })] : [],
      may('packets') ? [host(flow.originator), flow.responder.ip === flow.originator.ip ? null : host(flow.responder)] : [],
      button('Copy as command', () => copy(command(parameters), 'The command'), { id: 'as-command' }),
      button('Copy as curl', () => copy(curl(app, target), 'The curl command'), { id: 'as-curl' }));
  }

  function known(/** @type {Partial<Flow>} */ flow) {
    const rows = [
      ['Originator', endpoint(flow.originator, flow.proto)], ['Responder', endpoint(flow.responder, flow.proto)],
      ['Protocol', `${flow.proto}${flow.vlan === null ? '' : `, VLAN ${flow.vlan}`}`], ['State', flow.state], ['Interface', flow.interface],
      ['First packet', exactTime(microseconds(flow.first))], ['Last packet', exactTime(microseconds(flow.last))],
      ['Packets', `${exact(flow.packets.originator)} out, ${exact(flow.packets.responder)} in`], ['Bytes', `${exact(flow.bytes.originator)} out, ${exact(flow.bytes.responder)} in`],
      ['Kept', flow.kept_unknown ? 'not known' : `${exact(flow.kept_packets)} packets, ${exact(flow.kept_bytes)} bytes${flow.cut_at ? `; cut ${exactTime(microseconds(flow.cut_at))}` : ''}${flow.holes ? '; parts are missing in between' : ''}`],
      ['Names', words(flow)], ['Community ID', flow.community_id],
      ['Process', flow.process && `${flow.process.name || ''} (${flow.process.pid}${flow.process.path ? `, ${flow.process.path}` : ''}${flow.process.uid === undefined ? '' : `, uid ${flow.process.uid}`})${flow.process.end ? `, the ${flow.process.end}` : ''}`],
      ['Process not named', flow.process ? '' : flow.process_unknown],
      ['Container', flow.process?.container], ['Unit', flow.process?.unit], ['At the other end', flow.other_process && `${flow.other_process.name || ''} (${flow.other_process.pid}) ${flow.other_process.container || ''}`],
    ];
    return facts(rows);
  }

  function about(flow, body) {
    const more = el('div', { id: 'said' });
    body.replaceChildren(known(flow), more);
    if (app.visitor?.roles.includes('packets')) said(selection(flow), more);
  }

  async function packets(/** @type {Partial<Flow>} */ flow, body) {
    const list = el('ol', { class: 'lines', 'aria-label': 'Packets' }), tree = el('div', { class: 'tree', id: 'tree' }), note = el('p', { class: 'note' }, 'Reading …');
    body.replaceChildren(note, el('div', { class: 'split' }, list, tree));
    const wanted = state.packet;
    let first = NaN;
    /** @type {HTMLElement[]} */
    const chosen = [];
    const add = (/** @type {PacketLine} */ line) => {
      const at = microseconds(line.time);
      if (Number.isNaN(first)) first = at;
      const item = el('li', {}, button(`+${span(at - first)}  ${line.text}`, () => {
        list.querySelectorAll('[aria-current]').forEach((other) => other.removeAttribute('aria-current'));
        item.firstChild.setAttribute('aria-current', 'true');
        showTree(tree, line);
        change({ packet: line.time }, false);
      }, { title: exactTime(at) }));
      list.append(item);
      // A link names the packet by its time.
      if (line.time === wanted) chosen.push(/** @type {HTMLElement} */ (item.firstChild));
    };
    try {
      const end = await api.lines('GET /v1/lines', { ...selection(flow), count: PACKETS }, add);
      const missing = flow.packets.originator + flow.packets.responder - flow.kept_packets;
      note.textContent = [counted(list.children.length, 'packet'), missing > 0 && !flow.kept_unknown ? `${exact(missing)} are gone` : '', end['retrocap-note'] || '', wanted && !chosen.length ? `The packet of this link, ${exactTime(microseconds(wanted))}, is not among them` : ''].filter(Boolean).join('. ');
      const opened = chosen[0] || list.querySelector('button');
      opened?.click();
      if (chosen.length) opened?.scrollIntoView({ block: 'center' });
    } catch (error) {
      note.textContent = error.message;
    }
  }

  function showTree(place_, line) {
    const data = decode64(line.data);
    const own = treeOf(layers(line.link_type, data));
    const dump = el('pre', { class: 'hex', tabindex: 0, 'aria-label': 'Bytes' }, hexDump(data));
    place_.replaceChildren(own, dump, ...(line.captured > data.length ? [el('p', { class: 'note' }, `${exact(line.captured - data.length)} further bytes are not shown.`)] : []));
    if (app.visitor?.dissector) {
      dissect(line, data).then((full) => own.replaceWith(full)).catch((error) => place_.prepend(el('p', { class: 'note' }, `The dissector: ${error.message}`)));
    }
  }

  async function conversation(flow, body) {
    const asHex = el('input', { type: 'checkbox', id: 'hex' }), out = el('div', { class: 'said', id: 'said-bytes', tabindex: 0, role: 'region', 'aria-label': 'Both directions' }), note = el('p', { class: 'note' }, 'Reading …');
    body.replaceChildren(el('label', {}, asHex, ' Hexadecimal'), note, out);
    /** @type {StreamPart[]} */
    const parts = [];
    const show = () => out.replaceChildren(...parts.map((part) => {
      if (part.gap) return el('p', { class: `gap ${part.direction}` }, `${part.length ? `${exact(part.length)} bytes` : 'Bytes'} of the ${part.direction} are missing here (${part.gap.replace('_', ' ')})`);
      if (part.conflict) return el('p', { class: 'gap' }, `A later packet of the ${part.direction} had other bytes for ${exact(part.length)} bytes at ${exact(part.offset)}`);
      const data = decode64(part.data);
      return el('pre', { class: part.direction, title: `${part.direction}, offset ${exact(part.offset)}, ${exactTime(microseconds(part.time))}` }, asHex.checked ? hexDump(data, part.offset) : printable(data));
    }));
    asHex.addEventListener('change', show);
    try {
      const end = await api.lines('GET /v1/streams', selection(flow), (part) => parts.push(part));
      const gaps = parts.filter((part) => part.gap).length;
      note.textContent = [gaps ? counted(gaps, 'gap') : 'No gaps', end['retrocap-note'] || ''].filter(Boolean).join('. ');
      show();
    } catch (error) {
      note.textContent = error.message;
    }
  }

  async function files(flow, body) {
    const list = el('ul', { class: 'files' }), note = el('p', { class: 'note' }, 'Reading …');
    body.replaceChildren(note, list);
    try {
      const end = await api.lines('GET /v1/files', selection(flow), (file) => list.append(fileItem(file)));
      note.textContent = [counted(list.children.length, 'file'), end['retrocap-missing'] || ''].filter(Boolean).join('; ');
    } catch (error) {
      note.textContent = error.message;
    }
  }

  function fileItem(/** @type {FileObject} */ file) {
    const preview = el('div');
    const get = async () => (await api.open(file.path)).blob();
    const fetching = async (then) => {
      try { then(await get()); } catch (error) { preview.replaceChildren(error.message); }
    };
    return el('li', {}, el('strong', {}, file.name || '(no name)'), ` ${file.mime}, ${bytes(file.size)}, ${file.complete ? 'complete' : `${exact(file.missing_bytes)} bytes are missing`} `,
      el('code', { class: 'hash' }, file.sha256), ' ',
      button('Save', () => fetching((blob) => save(blob, `${file.sha256.slice(0, 16)}.bin`)), { 'aria-label': `Save ${file.name}` }),
      IMAGES.test(file.mime) ? button('Show', () => fetching((blob) => {
        const url = URL.createObjectURL(new Blob([blob], { type: file.mime }));
        preview.replaceChildren(el('img', { src: url, alt: `Image from the network: ${file.name}` }));
      }), { class: 'thumbnail', 'aria-label': `Show ${file.name}` }) : null, preview);
  }

  async function show() {
    const id = state.session;
    place.hidden = !id;
    document.body.classList.toggle('with-session', Boolean(id));
    if (!id) { shown = ''; return; }
    const key = `${id} ${state.zone}`;
    if (key === shown) return;
    shown = key;
    serial += 1;
    const mine = serial;
    seen = NaN;
    place.replaceChildren(el('p', {}, 'Reading …'));
    // Keys that are held pass many sessions by.
    clearTimeout(waiting);
    await new Promise((resolve) => { waiting = setTimeout(resolve, PASS_MS); });
    if (mine !== serial) return;
    /** @type {Partial<Flow>} */
    let flow;
    try {
      await api.lines('GET /v1/flows', { id }, (found) => { flow = found; });
    } catch (error) {
      if (mine !== serial) return;
      shown = '';
      place.replaceChildren(close(), el('p', { class: 'bad' }, error.message));
      return;
    }
    if (mine !== serial || !flow) return;
    seen = flow.packets.originator + flow.packets.responder;
    const title = `${endpoint(flow.originator, flow.proto)} → ${endpoint(flow.responder, flow.proto)} ${flow.proto}`;
    const views = [['packets', 'Packets', (body) => packets(flow, body)], ['conversation', 'Both directions', (body) => conversation(flow, body)],
      ['files', 'Files', (body) => files(flow, body)], ['about', 'About', (body) => about(flow, body)]];
    const may = app.visitor?.roles.includes('packets');
    place.replaceChildren(close(), el('h2', {}, title), el('p', { class: 'note' }, [words(flow), flow.state, `${bytes(flow.bytes.originator + flow.bytes.responder)}`].filter(Boolean).join(' · ')),
      el('p', { id: 'news', role: 'status' }), buttons(flow), el('p', { id: 'given', role: 'status' }), panels(may ? views : views.slice(3), state.tab || 'packets', (tab) => change({ tab: tab === 'packets' ? '' : tab }, false)));
  }

  const close = () => button('Close', () => { change({ session: '', tab: '', packet: '' }); byId('grid').focus(); }, { class: 'close', id: 'close' });

  // Says when the session has packets that are not shown.
  function news() {
    const row = state.session && seen >= 0 ? app.store.findId(state.session) : -1, line = byId('news');
    if (row < 0 || !line) return;
    const more = app.store.packets(row) - seen;
    const text = more > 0 ? `${counted(more, 'newer packet')} ` : '';
    if (line.dataset.shown === text) return;
    line.dataset.shown = text;
    line.replaceChildren(...(text ? [text, button('Show', () => { shown = ''; show(); }, { id: 'show-news' })] : []));
  }
  return { show, news };
}
