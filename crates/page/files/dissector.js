// The worker of an optional dissector: wiregasm (Wireshark in WebAssembly), which an administrator installed. It gets bytes of
// packets and gives trees of text; it has no token and no page.

/* global importScripts, loadWiregasm */
const FOLDER = '/page/dissector/';
let ready = null;

function start() {
  importScripts(`${FOLDER}wiregasm.js`);
  const load = self.loadWiregasm || self.Wiregasm || loadWiregasm;
  return load({ locateFile: (name) => FOLDER + name.split('/').pop(), print() {}, printErr() {} }).then((lib) => {
    if (!lib.init()) throw new Error('it did not start');
    return lib;
  });
}

// A capture file of one packet.
function capture({ linkType, length, time, data }) {
  const file = new Uint8Array(40 + data.length), view = new DataView(file.buffer);
  view.setUint32(0, 0xa1b23c4d, true);
  view.setUint16(4, 2, true);
  view.setUint16(6, 4, true);
  view.setUint32(16, 262144, true);
  view.setUint32(20, linkType, true);
  view.setUint32(24, Math.floor(Date.parse(`${time.slice(0, 19)}Z`) / 1000), true);
  view.setUint32(28, Number((time.slice(20).replace('Z', '')).padEnd(9, '0')), true);
  view.setUint32(32, data.length, true);
  view.setUint32(36, Math.max(length, data.length), true);
  file.set(data, 40);
  return file;
}

function plain(nodes) {
  const all = [];
  for (let i = 0; i < nodes.size(); i += 1) {
    const node = nodes.get(i);
    all.push({ label: node.label, tree: node.tree ? plain(node.tree) : [] });
  }
  return all;
}

self.onmessage = async ({ data: request }) => {
  try {
    ready = ready || start();
    const lib = await ready;
    const name = `${lib.getUploadDirectory()}/packet.pcap`;
    lib.FS.writeFile(name, capture(request));
    const session = new lib.DissectSession(name);
    try {
      if (session.load().code !== 0) throw new Error('it cannot read this packet');
      self.postMessage({ call: request.call, tree: plain(session.getFrame(1).tree) });
    } finally {
      session.delete();
      lib.FS.unlink(name);
    }
  } catch (error) {
    self.postMessage({ call: request.call, error: String(error.message || error) });
  }
};
