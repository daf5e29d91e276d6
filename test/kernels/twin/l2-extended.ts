/** The twin of assembly/l2-extended.ts: decode every subcluster, join it to the open run. */
import { type Kernels, L2Flags, MISUSE, RUN_BYTES, RunKind } from '../../../src/kernels/kernels.ts';
import { isClusterBits, mapped } from './bounds.ts';
import { streamBytes, streamHost } from './compressed-descriptor.ts';
import { putRun } from './run-record.ts';

const COPIED = 0x8000_0000;
const COMPRESSED = 0x4000_0000;
const RESERVED_HIGH = 0x3f00_0000;

export const l2ExtendedRuns =
  (memory: WebAssembly.Memory): Kernels['l2ExtendedRuns'] =>
  (table, first, subclusters, clusterBits, flags, out, outMax) => {
    if (!isClusterBits(clusterBits) || first > 31) return MISUSE;
    const entries = Math.ceil((first + subclusters) / 32);
    if (!mapped(memory, table, entries * 16)) return MISUSE;
    if (!mapped(memory, out, outMax * RUN_BYTES)) return MISUSE;
    const view = new DataView(memory.buffer);
    const cluster = 2 ** clusterBits;
    const step = cluster / 32;
    const dataFile = (flags & L2Flags.dataFile) !== 0;

    let runs = 0;
    let openKind = -1;
    let openUnits = 0;
    let openHost = 0;
    let openBytes = 0;
    // The host offset that lets a unit join the open run; NaN equals nothing.
    let openNext = Number.NaN;

    let left = subclusters;
    for (let i = 0; i < entries; i++) {
      const at = table + i * 16;
      const high = view.getUint32(at);
      const low = view.getUint32(at + 4);
      const zero = view.getUint32(at + 8);
      const allocated = view.getUint32(at + 12);
      const from = i === 0 ? first : 0;
      const end = Math.min(32, from + left);
      left -= end - from;

      // What the cluster is as a whole: one stream, corrupt, or (−1) a matter of its bits.
      let whole = -1;
      let place = 0;
      let bytes = 0;
      if ((high & COMPRESSED) !== 0) {
        whole = RunKind.corrupt;
        const stream = streamHost(high, low, clusterBits);
        if (stream >= 0 && !dataFile && zero === 0 && allocated === 0) {
          whole = RunKind.compressed;
          place = stream;
          bytes = streamBytes(high, low, clusterBits);
        }
      } else if ((high & RESERVED_HIGH) !== 0 || (low & (cluster - 1)) !== 0) {
        whole = RunKind.corrupt;
      } else {
        place = (high & 0x00ff_ffff) * 2 ** 32 + low;
        const placed = place !== 0 || (dataFile && (high & COPIED) !== 0);
        if ((allocated & zero) !== 0 || (allocated !== 0 && !placed)) {
          whole = RunKind.corrupt;
          place = 0;
        }
      }

      for (let s = from; s < end; s++) {
        let kind = whole;
        let host = place;
        let units = 1;
        let next = Number.NaN;
        if (whole >= 0) {
          units = end - from;
        } else if (((allocated >>> s) & 1) !== 0) {
          kind = RunKind.data;
          host = place + s * step;
          next = host + step;
        } else if (((zero >>> s) & 1) !== 0) {
          kind = RunKind.zero;
          host = place === 0 ? 0 : place + s * step;
          next = place === 0 ? 0 : host + step;
        } else {
          kind = RunKind.unallocated;
          host = 0;
          next = 0;
        }
        if (kind === openKind && host === openNext) {
          openUnits += units;
        } else {
          if (openUnits !== 0) {
            putRun(view, out + runs * RUN_BYTES, openKind, openUnits, openHost, openBytes);
            runs++;
          }
          if (runs === outMax) return runs;
          openKind = kind;
          openUnits = units;
          openHost = host;
          openBytes = bytes;
        }
        openNext = next;
        if (whole >= 0) break;
      }
    }
    if (openUnits !== 0) {
      putRun(view, out + runs * RUN_BYTES, openKind, openUnits, openHost, openBytes);
      runs++;
    }
    return runs;
  };
