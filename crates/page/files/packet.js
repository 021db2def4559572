// The headers of a packet as a tree. A dissector that an administrator installed shows all of it.

import { el } from './ui.js';

const ETHERTYPES = { 0x0800: 'IPv4', 0x86dd: 'IPv6', 0x0806: 'ARP', 0x8100: 'VLAN', 0x88a8: 'VLAN', 0x8847: 'MPLS', 0x88cc: 'LLDP', 0x8892: 'PROFINET' };
const IP = { 1: 'ICMP', 2: 'IGMP', 6: 'TCP', 17: 'UDP', 41: 'IPv6', 47: 'GRE', 50: 'ESP', 51: 'AH', 58: 'ICMPv6', 132: 'SCTP' };
const FLAGS = ['FIN', 'SYN', 'RST', 'PSH', 'ACK', 'URG', 'ECE', 'CWR'];
const DNS_TYPES = { 1: 'A', 2: 'NS', 5: 'CNAME', 6: 'SOA', 12: 'PTR', 15: 'MX', 16: 'TXT', 28: 'AAAA', 33: 'SRV', 65: 'HTTPS' };
const LAYERS_MAX = 24;

const hex = (number, digits) => `0x${number.toString(16).padStart(digits, '0')}`;
const mac = (data, at) => [...data.subarray(at, at + 6)].map((byte) => byte.toString(16).padStart(2, '0')).join(':');
const ip4 = (data, at) => [...data.subarray(at, at + 4)].join('.');
function ip6(data, at) {
  const words = [];
  for (let i = 0; i < 16; i += 2) words.push(((data[at + i] << 8) | data[at + i + 1]).toString(16));
  return words.join(':').replace(/(^|:)0(:0)+(:|$)/, '::');
}

// The layers of a packet: name, fields, and where each begins.
export function layers(linkType, data) {
  const all = [];
  const short = {};
  const u8 = (at) => { if (at >= data.length) throw short; return data[at]; };
  const u16 = (at) => (u8(at) << 8) | u8(at + 1);
  const u32 = (at) => u16(at) * 65536 + u16(at + 2);
  const add = (name, at, fields) => { all.push({ name, at, fields }); if (all.length > LAYERS_MAX) throw short; };

  function ethertype(type, at) {
    if (type === 0x0800) return ipv4(at);
    if (type === 0x86dd) return ipv6(at);
    if (type === 0x0806) {
      const operation = u16(at + 6);
      return add('ARP', at, [['Operation', operation === 1 ? 'request' : operation === 2 ? 'reply' : operation], ['Sender', `${mac(data, at + 8)} ${ip4(data, at + 14)}`], ['Target', `${mac(data, at + 18)} ${ip4(data, at + 24)}`]]);
    }
    if (type === 0x8100 || type === 0x88a8) {
      const tag = u16(at);
      add('VLAN', at, [['ID', tag & 4095], ['Priority', tag >> 13], ['Type', ETHERTYPES[u16(at + 2)] || hex(u16(at + 2), 4)]]);
      return ethertype(u16(at + 2), at + 4);
    }
    if (type === 0x8847) {
      const entry = u32(at);
      add('MPLS', at, [['Label', Math.floor(entry / 4096)], ['TTL', entry & 255]]);
      if (!((entry >> 8) & 1)) return ethertype(0x8847, at + 4);
      return (u8(at + 4) >> 4) === 6 ? ipv6(at + 4) : ipv4(at + 4);
    }
    return rest(at);
  }

  function ipv4(at) {
    const length = (u8(at) & 15) * 4, protocol = u8(at + 9), fragment = u16(at + 6);
    add('IPv4', at, [['Source', ip4(data, at + 12)], ['Destination', ip4(data, at + 16)], ['Protocol', IP[protocol] || protocol], ['Total length', u16(at + 2)], ['Identification', hex(u16(at + 4), 4)],
      ['Flags', [(fragment & 0x4000) && 'don’t fragment', (fragment & 0x2000) && 'more fragments'].filter(Boolean).join(', ') || 'none'], ['Fragment offset', (fragment & 0x1fff) * 8], ['TTL', u8(at + 8)], ['DSCP', u8(at + 1) >> 2], ['Header checksum', hex(u16(at + 10), 4)]]);
    if (length < 20) return;
    if (fragment & 0x1fff) rest(at + length); else transport(protocol, at + length);
  }

  function ipv6(at) {
    let next = u8(at + 6), end = at + 40;
    add('IPv6', at, [['Source', ip6(data, at + 8)], ['Destination', ip6(data, at + 24)], ['Next header', IP[next] || next], ['Payload length', u16(at + 4)], ['Hop limit', u8(at + 7)], ['Flow label', hex(u32(at) % 1048576, 5)]]);
    for (let i = 0; i < 8 && [0, 43, 44, 60].includes(next); i += 1) {
      const length = next === 44 ? 8 : (u8(end + 1) + 1) * 8;
      add('IPv6 extension', end, [['Header', next], ['Length', length]]);
      if (next === 44 && (u16(end + 2) & 0xfff8)) return rest(end + 8);
      next = u8(end);
      end += length;
    }
    transport(next, end);
  }

  function transport(protocol, at) {
    if (protocol === 6) {
      const length = (u8(at + 12) >> 4) * 4, bits = u8(at + 13);
      add('TCP', at, [['Source port', u16(at)], ['Destination port', u16(at + 2)], ['Sequence number', u32(at + 4)], ['Acknowledgment', u32(at + 8)], ['Flags', FLAGS.filter((_, i) => bits & (1 << i)).join(', ') || 'none'], ['Window', u16(at + 14)], ['Checksum', hex(u16(at + 16), 4)], ['Options', `${Math.max(0, length - 20)} bytes`]]);
      if (length >= 20) application(at + length, u16(at), u16(at + 2), true);
    } else if (protocol === 17) {
      add('UDP', at, [['Source port', u16(at)], ['Destination port', u16(at + 2)], ['Length', u16(at + 4)], ['Checksum', hex(u16(at + 6), 4)]]);
      application(at + 8, u16(at), u16(at + 2), false);
    } else if (protocol === 1 || protocol === 58) {
      add(protocol === 1 ? 'ICMP' : 'ICMPv6', at, [['Type', u8(at)], ['Code', u8(at + 1)], ['Checksum', hex(u16(at + 2), 4)]]);
      rest(at + 4);
    } else if (protocol === 41) ipv6(at);
    else if (protocol === 4) ipv4(at);
    else if (protocol === 47) {
      const bits = u16(at), length = 4 + ((bits & 0x8000) ? 4 : 0) + ((bits & 0x2000) ? 4 : 0) + ((bits & 0x1000) ? 4 : 0);
      add('GRE', at, [['Protocol', ETHERTYPES[u16(at + 2)] || hex(u16(at + 2), 4)]]);
      if (u16(at + 2) === 0x6558) ethernet(at + length); else ethertype(u16(at + 2), at + length);
    } else rest(at);
  }

  function application(at, from, to, isTcp) {
    if (at >= data.length) return;
    const text = String.fromCharCode(...data.subarray(at, at + 2000));
    if (!isTcp && (from === 53 || to === 53 || from === 5353 || from === 5355)) return dns(at);
    if (isTcp && (from === 53 || to === 53)) return dns(at + 2);
    if (!isTcp && to === 4789) { add('VXLAN', at, [['VNI', u32(at + 4) >> 8]]); return ethernet(at + 8); }
    if (/^(GET|POST|PUT|HEAD|DELETE|OPTIONS|PATCH|CONNECT) |^HTTP\/1\./.test(text)) {
      const [first, ...headers] = text.split('\r\n\r\n')[0].split('\r\n');
      return add('HTTP', at, [[/^HTTP/.test(text) ? 'Status' : 'Request', clean(first)], ...headers.map((line) => line.split(/:\s*(.*)/s)).filter((pair) => pair.length > 1).map(([name, value]) => [clean(name), clean(value)])]);
    }
    if (isTcp && data[at] >= 20 && data[at] <= 23 && data[at + 1] === 3) return tls(at);
    rest(at);
  }

  function dns(at) {
    const name = (from) => {
      const labels = [];
      let here = from, jumps = 0, end = -1;
      while (u8(here) !== 0) {
        if (u8(here) >= 192) {
          if (end < 0) end = here + 2;
          here = at + (u16(here) & 0x3fff);
          jumps += 1;
          if (jumps > 16) throw short;
          continue;
        }
        labels.push(clean(String.fromCharCode(...data.subarray(here + 1, here + 1 + u8(here)))));
        here += 1 + u8(here);
      }
      return [labels.join('.') || '.', end < 0 ? here + 1 : end];
    };
    const flags = u16(at + 2), questions = u16(at + 4), answers = u16(at + 6);
    const fields = [['ID', hex(u16(at), 4)], ['Kind', flags & 0x8000 ? 'response' : 'query'], ['Response code', flags & 15]];
    add('DNS', at, fields);
    let here = at + 12;
    for (let i = 0; i < Math.min(questions, 8); i += 1) {
      const [text, end] = name(here);
      fields.push(['Question', `${text} ${DNS_TYPES[u16(end)] || u16(end)}`]);
      here = end + 4;
    }
    for (let i = 0; i < Math.min(answers, 32); i += 1) {
      const [text, end] = name(here);
      const type = u16(end), length = u16(end + 8);
      const value = type === 1 ? ip4(data, end + 10) : type === 28 ? ip6(data, end + 10) : [2, 5, 12].includes(type) ? name(end + 10)[0] : `${length} bytes`;
      fields.push(['Answer', `${text} ${DNS_TYPES[type] || type} ${value}`]);
      here = end + 10 + length;
    }
  }

  function tls(at) {
    const fields = [['Record', { 20: 'change cipher spec', 21: 'alert', 22: 'handshake', 23: 'application data' }[data[at]]], ['Record version', hex(u16(at + 1), 4)], ['Length', u16(at + 3)]];
    add('TLS', at, fields);
    if (data[at] !== 22) return;
    const kind = u8(at + 5);
    fields.push(['Handshake', { 1: 'client hello', 2: 'server hello', 11: 'certificate' }[kind] || kind]);
    if (kind !== 1 && kind !== 2) return;
    fields.push(['Hello version', hex(u16(at + 9), 4)]);
    let here = at + 44 + u8(at + 43);
    if (kind === 2) { fields.push(['Cipher', hex(u16(here), 4)]); here += 3; } else {
      fields.push(['Ciphers', u16(here) / 2]);
      here += 2 + u16(here);
      here += 1 + u8(here);
    }
    const end = here + 2 + u16(here);
    for (here += 2; here + 4 <= end; here += 4 + u16(here + 2)) {
      const type = u16(here);
      if (type === 0 && kind === 1) fields.push(['Server name', clean(String.fromCharCode(...data.subarray(here + 9, here + 9 + u16(here + 7))))]);
      else if (type === 16) fields.push(['ALPN', clean(String.fromCharCode(...data.subarray(here + 7, here + 7 + u8(here + 6))))]);
      else if (type === 43) fields.push(['Supported version', kind === 2 ? hex(u16(here + 4), 4) : `${u8(here + 4) / 2} versions`]);
    }
  }

  function rest(at) {
    if (at < data.length) add('Data', at, [['Bytes', data.length - at]]);
  }

  function ethernet(at) {
    const type = u16(at + 12);
    add('Ethernet', at, [['Destination', mac(data, at)], ['Source', mac(data, at + 6)], ['Type', ETHERTYPES[type] || hex(type, 4)]]);
    ethertype(type, at + 14);
  }

  try {
    if (linkType === 1) ethernet(0);
    else if (linkType === 113) { add('Linux cooked capture', 0, [['Protocol', hex(u16(14), 4)]]); ethertype(u16(14), 16); }
    else if (linkType === 276) { add('Linux cooked capture 2', 0, [['Protocol', hex(u16(0), 4)]]); ethertype(u16(0), 20); }
    else if ([101, 12, 14, 228, 229].includes(linkType)) { if ((u8(0) >> 4) === 6) ipv6(0); else ipv4(0); }
    else if (linkType === 0 || linkType === 108) { add('Loopback', 0, []); if ((u8(4) >> 4) === 6) ipv6(4); else ipv4(4); }
    else { add(`Link type ${linkType}`, 0, []); rest(0); }
  } catch (error) {
    if (error !== short) throw error;
    all.push({ name: 'Not decoded further', at: data.length, fields: [] });
  }
  return all;
}

// Text of the network without characters that are not seen or that turn the reading direction.
export function clean(text) {
  return text.replace(/[^\x20-\x7e]/g, '�');
}

export function treeOf(all) {
  return el('div', { class: 'layers' }, ...all.map((layer) => el('details', { open: layer === all[all.length - 1] || layer.name === 'TCP' || layer.name === 'UDP' },
    el('summary', {}, layer.name, ' ', el('small', {}, layer.fields.slice(0, 2).map(([name, value]) => `${name} ${value}`).join(', '))),
    el('dl', {}, ...layer.fields.flatMap(([name, value]) => [el('dt', {}, name), el('dd', {}, String(value))])))));
}

// The dissector runs in a worker, whose own response lets it make code from text. The page stays as strict as it is.
let worker = null, calls = 0;
const waiting = new Map();

export function dissect(line, data) {
  if (!worker) {
    const policy = /** @type {any} */ (window).trustedTypes?.createPolicy('retrocap-dissector', { createScriptURL: () => '/page/dissector.js' });
    worker = new Worker(policy ? policy.createScriptURL('') : '/page/dissector.js');
    worker.onmessage = ({ data: { call, tree, error } }) => {
      const { resolve, reject } = waiting.get(call);
      waiting.delete(call);
      if (error) reject(new Error(error)); else resolve(full(tree));
    };
    worker.onerror = () => { waiting.forEach(({ reject }) => reject(new Error('it could not be started'))); waiting.clear(); };
  }
  calls += 1;
  return new Promise((resolve, reject) => {
    waiting.set(calls, { resolve, reject });
    worker.postMessage({ call: calls, linkType: line.link_type, length: line.length, time: line.time, data });
  });
}

function full(nodes, depth = 0) {
  return el('div', { class: depth ? '' : 'layers', id: depth ? undefined : 'dissected' }, ...nodes.map((node) => (node.tree?.length
    ? el('details', { open: depth === 0 && node === nodes[nodes.length - 1] }, el('summary', {}, clean(node.label)), full(node.tree, depth + 1))
    : el('p', {}, clean(node.label)))));
}
