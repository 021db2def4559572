// Who talked: hosts, pairs, ports, applications, processes and containers of the sessions in the list, with bars for out and in.

import * as api from './api.js';
import { bytes, exact, number } from './format.js';
import { protocolName } from './store.js';
import { addTerm, change, state } from './state.js';
import { button, el, say } from './ui.js';

const KINDS = [['', 'Hosts'], ['pair', 'Pairs'], ['port', 'Ports'], ['app', 'Applications'], ['process', 'Processes'], ['container', 'Containers']];
const SHOWN = 40, EVERY_MS = 1500, PROCESSES_MS = 15000;
const SERVICES = { 20: 'ftp-data', 21: 'ftp', 22: 'ssh', 23: 'telnet', 25: 'smtp', 53: 'dns', 67: 'dhcp', 68: 'dhcp', 69: 'tftp', 80: 'http', 88: 'kerberos',
  102: 's7comm', 110: 'pop3', 111: 'sunrpc', 123: 'ntp', 137: 'netbios', 138: 'netbios', 139: 'smb', 143: 'imap', 161: 'snmp', 389: 'ldap', 443: 'https', 445: 'smb',
  502: 'modbus', 514: 'syslog', 587: 'smtp', 631: 'ipp', 636: 'ldaps', 853: 'dns over tls', 993: 'imaps', 995: 'pop3s', 1883: 'mqtt', 1900: 'ssdp', 2049: 'nfs', 2404: 'iec104',
  3306: 'mysql', 3389: 'rdp', 5060: 'sip', 5353: 'mdns', 5355: 'llmnr', 5432: 'postgresql', 5900: 'vnc', 6379: 'redis', 8080: 'http', 20000: 'dnp3', 44818: 'enip', 47808: 'bacnet' };

export function talkers(place, app) {
  const choice = el('select', { id: 'by', 'aria-label': 'Sum by' }, ...KINDS.map(([value, text]) => el('option', { value }, text)));
  const note = el('p', { class: 'note' });
  const list = el('ul', { id: 'sums' });
  place.append(el('h2', {}, 'Talkers ', choice), el('p', { class: 'note' }, 'Click to narrow, Alt-click to exclude.'), list, note);
  choice.addEventListener('change', () => change({ by: choice.value }));
  let timer = 0, drawn = 0, asked = '';

  function hosts() {
    const { store, rows } = app;
    const out = new Float64Array(store.addresses.count), into = new Float64Array(store.addresses.count), count = new Uint32Array(store.addresses.count);
    for (let i = 0; i < rows.length; i += 1) {
      const row = rows[i], a = store.originator[row], b = store.responder[row];
      out[a] += store.originatorBytes[row];
      into[a] += store.responderBytes[row];
      count[a] += 1;
      if (a === b) continue;
      out[b] += store.responderBytes[row];
      into[b] += store.originatorBytes[row];
      count[b] += 1;
    }
    const most = top(count.length, (i) => out[i] + into[i] + (count[i] ? 1e-9 : -1));
    return most.filter((i) => count[i]).map((i) => ({ name: store.addresses.text(i), term: `host:${store.addresses.text(i)}`, out: out[i], into: into[i], count: count[i] }));
  }

  // Sums by a key that is a number.
  function sums(keyOf, most) {
    const { store, rows } = app, all = new Map();
    for (let i = 0; i < rows.length; i += 1) {
      const row = rows[i], key = keyOf(row);
      let sum = all.get(key);
      if (!sum) { sum = { key, out: 0, into: 0, count: 0, row }; all.set(key, sum); }
      sum.out += store.originatorBytes[row];
      sum.into += store.responderBytes[row];
      sum.count += 1;
    }
    const values = [...all.values()];
    return top(values.length, (i) => values[i].out + values[i].into, most).map((i) => values[i]);
  }

  function pairs() {
    const { store } = app, total = store.addresses.count;
    return sums((row) => Math.min(store.originator[row], store.responder[row]) * total + Math.max(store.originator[row], store.responder[row]))
      .map((sum) => {
        const a = store.addresses.text(store.originator[sum.row]), b = store.addresses.text(store.responder[sum.row]);
        return { ...sum, name: `${a} – ${b}`, term: `pair:${a}~${b}` };
      });
  }

  function ports() {
    const { store } = app;
    return sums((row) => store.protocol[row] * 65536 + store.responderPort[row]).map((sum) => {
      const protocol = protocolName(Math.floor(sum.key / 65536)), port = sum.key % 65536;
      const has = ['tcp', 'udp', 'sctp'].includes(protocol);
      return { ...sum, name: has ? `${protocol}/${port}${SERVICES[port] ? ` ${SERVICES[port]}` : ''}` : protocol, term: has ? `port:${protocol}/${port}` : `proto:${protocol}` };
    });
  }

  // Applications by the port that their responder has: all sessions of the list, also those whose packets are gone.
  function applications() {
    const { store } = app, known = new Map();
    const service = (key) => {
      let found = known.get(key);
      if (found === undefined) {
        const protocol = protocolName(Math.floor(key / 65536)), port = key % 65536;
        found = ['tcp', 'udp', 'sctp'].includes(protocol) ? SERVICES[port] || `${protocol}/${port}` : protocol;
        known.set(key, found);
      }
      return found;
    };
    const all = new Map();
    for (const sum of sums((row) => store.protocol[row] * 65536 + store.responderPort[row], Infinity)) {
      const name = service(sum.key), of = all.get(name);
      if (of) { of.out += sum.out; of.into += sum.into; of.count += sum.count; of.terms.push(sum.key); } else all.set(name, { ...sum, name, terms: [sum.key] });
    }
    const term = ({ terms }) => {
      const protocol = protocolName(Math.floor(terms[0] / 65536));
      return ['tcp', 'udp', 'sctp'].includes(protocol) ? `port:${terms.length === 1 ? `${protocol}/` : ''}${terms[0] % 65536}` : `proto:${protocol}`;
    };
    note.textContent = `By the port of the responder, of all ${number(app.rows.length)} sessions in the list. By content: retrocap flows --by app.`;
    return [...all.values()].sort((x, y) => y.out + y.into - x.out - x.into).slice(0, SHOWN)
      .map((sum) => ({ ...sum, term: sum.terms.every((key) => key % 65536 === sum.terms[0] % 65536) ? term(sum) : null }));
  }

  // Processes and containers, which only the recorder knows: it sums up all sessions of the window.
  async function processes(by) {
    const all = [];
    const filter = app.understood.kind === 'expression' ? app.understood.expression : undefined;
    const end = await api.lines('GET /v1/flows', { by, sort: 'bytes', since: state.since, until: state.until, filter }, (sum) => {
      const known = sum[by], name = known || '(not known)';
      // "host" stands for processes in no container, which cannot be asked for.
      const find = known && !(by === 'container' && known === 'host') ? `${by}:${known}` : null;
      all.push({ name, out: sum.bytes.out, into: sum.bytes.in, count: sum.sessions, find });
    });
    const sessions = end['retrocap-sessions'] || 0;
    note.textContent = [`All ${number(Number(sessions))} sessions of the window${filter ? ' that match' : ''}; terms narrow the list alone.`, end['retrocap-note']].filter(Boolean).join(' ');
    return all.slice(0, SHOWN);
  }

  function top(count, amount, most = SHOWN) {
    if (most === Infinity) return Array.from({ length: count }, (_, i) => i);
    const heap = [];
    let least = -1;
    for (let i = 0; i < count; i += 1) {
      const value = amount(i);
      if (heap.length < SHOWN) {
        heap.push([value, i]);
        if (heap.length === SHOWN) { heap.sort((a, b) => b[0] - a[0]); [least] = heap[SHOWN - 1]; }
      } else if (value > least) {
        let at = SHOWN - 1;
        while (at > 0 && heap[at - 1][0] < value) { heap[at] = heap[at - 1]; at -= 1; }
        heap[at] = [value, i];
        [least] = heap[SHOWN - 1];
      }
    }
    return heap.sort((a, b) => b[0] - a[0]).map(([, i]) => i);
  }

  function draw(found) {
    const most = Math.max(1, ...found.map((sum) => sum.out + sum.into));
    list.replaceChildren(...found.map((sum) => {
      const title = `${exact(sum.out)} bytes out, ${exact(sum.into)} bytes in, ${exact(sum.count)} sessions`;
      const act = (event) => {
        if (sum.find && !event.altKey) return change({ q: sum.find });
        if (!sum.term) return say(sum.find ? 'Sessions of a process cannot be excluded' : 'Sessions of it cannot be narrowed to');
        addTerm(event.altKey ? 'not' : 'only', sum.term);
      };
      return el('li', {}, button('', act, { title }),
        sum.term ? button('−', () => addTerm('not', sum.term), { class: 'exclude', 'aria-label': `Exclude ${sum.name}`, title: 'Exclude' }) : null);
    }));
    list.querySelectorAll('li').forEach((item, i) => {
      const sum = found[i], out = el('b', { class: 'out' }), into = el('b', { class: 'in' });
      out.style.width = `${(100 * sum.out) / most}%`;
      into.style.width = `${(100 * sum.into) / most}%`;
      item.firstChild.append(el('span', { class: 'name' }, sum.name), el('span', { class: 'amount' }, bytes(sum.out + sum.into)), el('i', { class: 'bars' }, out, into));
    });
  }

  function show() {
    choice.value = state.by;
    clearTimeout(timer);
    timer = setTimeout(async () => {
      drawn = performance.now();
      const kind = state.by;
      if (kind === 'process' || kind === 'container') {
        const question = `${kind} ${state.since} ${state.until} ${state.q} ${app.loaded} ${Math.floor(performance.now() / PROCESSES_MS)}`;
        if (question === asked) return;
        asked = question;
        try {
          draw(await processes(kind));
        } catch (error) {
          list.replaceChildren();
          note.textContent = error.message;
        }
        return;
      }
      asked = '';
      note.textContent = '';
      draw(kind === 'pair' ? pairs() : kind === 'port' ? ports() : kind === 'app' ? applications() : hosts());
    }, Math.max(0, Math.min(EVERY_MS, EVERY_MS - (performance.now() - drawn))));
  }
  return { show };
}
