// What somebody typed, understood as addresses and ports, as a name, or as a tcpdump expression.

import { protocolNumber, ETHERTYPE } from './store.js';

const WORDS = /\b(host|net|port|portrange|src|dst|and|or|not|proto|less|greater|ether|vlan|ip|ip6|gateway|broadcast|multicast|len)\b|[=<>&|!()[\]]/;

// A term that the sessions' columns decide: a function of a row, made for a store.
export function term(text) {
  const negative = /^[-!]/.test(text) && text.length > 1;
  const [, kind, rest] = /^(host|pair|port|proto|net|iface):(.*)$/.exec(text.replace(/^[-!]/, '')) || [null, 'plain', text.replace(/^[-!]/, '')];
  const made = make(kind, rest);
  return made && { ...made, negative };
}

function make(kind, text) {
  if (kind === 'iface') return { words: `interface ${text}`, test: (store, names) => { const of = names.indexOf(text); return (row) => store.iface[row] === of; } };
  if (kind === 'pair') {
    const [a, b] = text.split('~');
    if (!a || !b) return null;
    return { words: `between ${a} and ${b}`, test: (store) => both(store, exactly(store, a), exactly(store, b)) };
  }
  const port = /^(?:(tcp|udp|sctp)\/)?:?(\d{1,5})$/.exec(text);
  if (port && Number(port[2]) < 65536 && kind !== 'host' && kind !== 'proto') {
    const of = Number(port[2]), protocol = port[1] ? protocolNumber(port[1]) : -1;
    return {
      words: `port ${text.replace(/^:/, '')}`,
      test: (store) => (row) => (protocol < 0 || store.protocol[row] === protocol)
        && (kind === 'port' && protocol >= 0 ? store.responderPort[row] === of : store.responderPort[row] === of || store.originatorPort[row] === of),
    };
  }
  const protocol = protocolNumber(text);
  if ((kind === 'proto' || kind === 'plain') && protocol >= 0) {
    return { words: `protocol ${text}`, test: (store) => (row) => store.protocol[row] === protocol };
  }
  if (kind === 'proto' && /^0x[0-9a-f]{4}$/.test(text)) {
    const of = ETHERTYPE + parseInt(text, 16);
    return { words: `ethertype ${text}`, test: (store) => (row) => store.protocol[row] === of };
  }
  if (kind === 'proto' && /^\d+$/.test(text)) return { words: `protocol ${text}`, test: (store) => (row) => store.protocol[row] === Number(text) };
  const net = /^(\d+\.\d+\.\d+\.\d+)\/(\d+)$/.exec(text);
  if (net && v4(net[1]) !== null && Number(net[2]) <= 32) {
    const bits = Number(net[2]), mask = bits === 0 ? 0 : (0xffffffff << (32 - bits)) >>> 0, value = (v4(net[1]) & mask) >>> 0;
    return { words: `network ${text}`, test: (store) => either(store, (index) => store.addresses.kinds[index] === 4 && ((store.addresses.raw[index] & mask) >>> 0) === value) };
  }
  const withPort = /^(\d+\.\d+\.\d+\.\d+):(\d+)$/.exec(text) || /^\[([0-9a-f:.]+)\]:(\d+)$/i.exec(text);
  if (withPort) {
    const of = Number(withPort[2]);
    return { words: `endpoint ${text}`, test: (store) => {
      const is = exactly(store, withPort[1]);
      return (row) => (is[store.originator[row]] && store.originatorPort[row] === of) || (is[store.responder[row]] && store.responderPort[row] === of);
    } };
  }
  if (kind === 'host' || v4(text) !== null || (/^[0-9a-f:]+$/i.test(text) && (text.match(/:/g) || []).length >= 2)) {
    return { words: `address ${text}`, test: (store) => either(store, null, exactly(store, text)) };
  }
  return null;
}

function v4(text) {
  const parts = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(text);
  if (!parts || parts.slice(1).some((part) => Number(part) > 255)) return null;
  return parts.slice(1).reduce((all, part) => all * 256 + Number(part), 0);
}

// An address as the list writes it: others write IPv6 with all its zeros.
function canonical(text) {
  return v6(text) || text.toLowerCase();
}

// An IPv6 address in its short form; an empty text for other texts.
export function v6(text) {
  if (!/^[0-9a-f:.]*:[0-9a-f:.]*$/i.test(text)) return '';
  const url = new URL(location.href);
  url.hostname = 'none.invalid';
  // The browser's own parser; it ignores what is no address.
  url.hostname = `[${text}]`;
  return url.hostname.startsWith('[') ? url.hostname.slice(1, -1) : '';
}

function exactly(store, text) {
  const is = new Uint8Array(store.addresses.count);
  const wanted = canonical(text);
  for (let i = 0; i < is.length; i += 1) is[i] = store.addresses.text(i) === wanted ? 1 : 0;
  return is;
}

function either(store, decide, given) {
  const is = given || Uint8Array.from({ length: store.addresses.count }, (_, i) => (decide(i) ? 1 : 0));
  return (row) => is[store.originator[row]] === 1 || is[store.responder[row]] === 1;
}

function both(store, a, b) {
  return (row) => (a[store.originator[row]] && b[store.responder[row]]) || (b[store.originator[row]] && a[store.responder[row]]);
}

// How a text is understood: { kind: 'none' | 'terms' | 'name' | 'process' | 'container' | 'expression', words, terms }.
export function understand(text) {
  const trimmed = text.trim();
  if (!trimmed) return { kind: 'none', words: '' };
  const process = /^process:(\S.*)$/.exec(trimmed);
  if (process) return { kind: 'process', process: process[1], words: `sessions of the process ${process[1]}` };
  const container = /^container:(\S.*)$/.exec(trimmed);
  if (container) return { kind: 'container', container: container[1], words: `sessions of the container ${container[1]}` };
  const pieces = trimmed.split(/\s+/);
  const terms = pieces.map(term);
  if (terms.every(Boolean)) {
    return { kind: 'terms', terms, words: terms.map((one) => (one.negative ? `not ${one.words}` : one.words)).join(', ') };
  }
  if (pieces.length === 1 && !WORDS.test(trimmed) && /^[\p{L}\p{N}._*:-]+$/u.test(trimmed)) {
    return { kind: 'name', name: trimmed, words: trimmed.startsWith('.') ? `names below ${trimmed.slice(1)}` : `names that contain ${trimmed}` };
  }
  return { kind: 'expression', expression: trimmed, words: 'a tcpdump expression' };
}
