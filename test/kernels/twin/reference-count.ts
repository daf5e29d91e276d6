/** The twin of assembly/reference-count.ts. An entry is its two halves, each unsigned. */
import { type Kernels, L2Flags, MISUSE, Tally } from '../../../src/kernels/kernels.ts';
import { isClusterBits, mapped } from './bounds.ts';

const COMPRESSED = 0x4000_0000;
const RESERVED_HIGH = 0x3f00_0000;
const RESERVED_LOW = 0x1fe;

/** What one entry refers to: `odd` where there is something to say about it. */
type Reference =
  | { readonly kind: 'none' }
  | { readonly kind: 'odd' }
  | { readonly kind: 'plain'; readonly host: number; readonly copied: boolean }
  | { readonly kind: 'compressed'; readonly first: number; readonly last: number };

const NONE: Reference = { kind: 'none' };
const ODD: Reference = { kind: 'odd' };

function compressedReference(high: number, low: number, bits: number): Reference {
  const host = (high & (2 ** (38 - bits) - 1)) * 2 ** 32 + low;
  // Far beyond every limit, where doubles are no longer exact.
  if (host >= 2 ** 53) return ODD;
  const sectors = ((high & 0x3fff_ffff) >>> (38 - bits)) + 1;
  const end = host - (host % 512) + sectors * 512;
  return {
    kind: 'compressed',
    first: Math.floor(host / 2 ** bits),
    last: Math.floor((end - 1) / 2 ** bits),
  };
}

function referenceOf(
  view: DataView,
  at: number,
  context: { stride: number; bits: number; dataFile: boolean },
): Reference {
  const { stride, bits, dataFile } = context;
  const high = view.getUint32(at);
  const low = view.getUint32(at + 4);
  const extended = stride === 16;
  const zeros = extended ? view.getUint32(at + 8) : 0;
  const data = extended ? view.getUint32(at + 12) : 0;
  const copied = high >>> 31 === 1;
  if (high & COMPRESSED) {
    if (copied || dataFile || zeros !== 0 || data !== 0) return ODD;
    return compressedReference(high, low, bits);
  }
  if (high & RESERVED_HIGH || low & RESERVED_LOW) return ODD;
  const host = (high & 0xff_ffff) * 2 ** 32 + ((low & 0xffff_fe00) >>> 0);
  const zero = !extended && (low & 1) === 1;
  if (host === 0 && (zero || !(dataFile && copied))) return data !== 0 ? ODD : NONE;
  if (zeros & data || host % 2 ** bits !== 0) return ODD;
  return { kind: 'plain', host, copied };
}

export const l2References =
  (memory: WebAssembly.Memory): Kernels['l2References'] =>
  (table, entries, stride, tally) => {
    if ((stride !== 8 && stride !== 16) || !mapped(memory, table, entries * stride)) return MISUSE;
    if (!mapped(memory, tally, Tally.bytes)) return MISUSE;
    const view = new DataView(memory.buffer);
    const field = (at: number) => view.getUint32(tally + at, true);
    const bits = field(Tally.clusterBits);
    const [width, most, times] = [field(Tally.width), field(Tally.most), field(Tally.times)];
    const [limit, counts, first] = [field(Tally.limit), field(Tally.counts), field(Tally.first)];
    const length = field(Tally.length);
    if (!isClusterBits(bits) || (width !== 2 && width !== 4)) return MISUSE;
    if ((width === 2 && most > 0xffff) || times === 0 || times > most) return MISUSE;
    if (most === 0xffff_ffff || limit > 2 ** 31 || length > 2 ** 31) return MISUSE;
    if (!mapped(memory, counts, length * width)) return MISUSE;
    const [seen, half] = [field(Tally.seen), Math.floor(length / 8) + 4];
    if (seen !== 0 && !mapped(memory, seen, half * 2)) return MISUSE;
    const dataFile = (field(Tally.flags) & L2Flags.dataFile) !== 0;

    const countOf = (at: number) =>
      width === 4 ? view.getUint32(at, true) : view.getUint16(at, true);
    /** Adds to the clusters [from, to], or to none of them. */
    const add = (from: number, to: number): boolean => {
      const places: number[] = [];
      for (let cluster = from; cluster <= to; cluster++) {
        const k = cluster - first;
        if (k >= 0 && k < length) places.push(counts + k * width);
      }
      if (places.some((at) => countOf(at) + times > most)) return false;
      for (const at of places) {
        if (width === 4) view.setUint32(at, countOf(at) + times, true);
        else view.setUint16(at, countOf(at) + times, true);
      }
      return true;
    };
    const more = (at: number) => view.setUint32(tally + at, field(at) + 1, true);

    for (let i = 0; i < entries; i++) {
      const reference = referenceOf(view, table + i * stride, { stride, bits, dataFile });
      if (reference.kind === 'none') continue;
      if (reference.kind === 'odd') return i;
      if (reference.kind === 'compressed') {
        if (reference.last >= limit || !add(reference.first, reference.last)) return i;
        more(Tally.allocated);
        more(Tally.fragmented);
        more(Tally.compressed);
        continue;
      }
      const { host } = reference;
      const cluster = host / 2 ** bits;
      if (!dataFile && (cluster >= limit || !add(cluster, cluster))) return i;
      const k = cluster - first;
      if (seen !== 0 && !dataFile && k >= 0 && k < length) {
        const at = seen + (reference.copied ? 0 : half) + Math.floor(k / 8);
        view.setUint8(at, view.getUint8(at) | (1 << (k % 8)));
      }
      more(Tally.allocated);
      const low = view.getUint32(tally + Tally.next, true);
      const next = view.getUint32(tally + Tally.next + 4, true) * 2 ** 32 + low;
      if (next !== 0 && next !== host) more(Tally.fragmented);
      const after = host + 2 ** bits;
      view.setUint32(tally + Tally.next, after % 2 ** 32, true);
      view.setUint32(tally + Tally.next + 4, Math.floor(after / 2 ** 32), true);
    }
    return entries;
  };
