/** The twin of assembly/l2-run.ts: decode every entry, join it to the open run if it follows. */
import { type Kernels, L2Flags, MISUSE, RUN_BYTES, RunKind } from '../../../src/kernels/kernels.ts';
import { isClusterBits, mapped } from './bounds.ts';
import { streamBytes, streamHost } from './compressed-descriptor.ts';
import { putRun } from './run-record.ts';

const COPIED = 0x8000_0000;
const COMPRESSED = 0x4000_0000;
const RESERVED_HIGH = 0x3f00_0000;

export const l2Runs =
  (memory: WebAssembly.Memory): Kernels['l2Runs'] =>
  (table, entries, clusterBits, flags, out, outMax) => {
    if (!isClusterBits(clusterBits) || !mapped(memory, table, entries * 8)) return MISUSE;
    if (!mapped(memory, out, outMax * RUN_BYTES)) return MISUSE;
    const view = new DataView(memory.buffer);
    const cluster = 2 ** clusterBits;
    const dataFile = (flags & L2Flags.dataFile) !== 0;
    const version2 = (flags & L2Flags.version2) !== 0;
    // All that a host offset may not have below the cluster size, but for the zero flag.
    const forbiddenLow = (cluster - 1) & (version2 ? -1 : -2);

    let runs = 0;
    let openKind = -1;
    let openUnits = 0;
    let openHost = 0;
    let openBytes = 0;
    // The host offset that lets a unit join the open run; NaN equals nothing.
    let openNext = Number.NaN;

    for (let i = 0; i < entries; i++) {
      const high = view.getUint32(table + i * 8);
      const low = view.getUint32(table + i * 8 + 4);
      let kind: number = RunKind.corrupt;
      let host = 0;
      let bytes = 0;
      let next = Number.NaN;
      if ((high & COMPRESSED) !== 0) {
        const stream = streamHost(high, low, clusterBits);
        if (stream >= 0 && !dataFile) {
          kind = RunKind.compressed;
          host = stream;
          bytes = streamBytes(high, low, clusterBits);
        }
      } else if ((high & RESERVED_HIGH) === 0 && (low & forbiddenLow) === 0) {
        host = (high & 0x00ff_ffff) * 2 ** 32 + ((low & -2) >>> 0);
        if ((low & 1) !== 0) {
          kind = RunKind.zero;
          next = host === 0 ? 0 : host + cluster;
        } else if (host === 0 && !(dataFile && (high & COPIED) !== 0)) {
          kind = RunKind.unallocated;
          next = 0;
        } else {
          kind = RunKind.data;
          next = host + cluster;
        }
      }
      if (kind === openKind && host === openNext) {
        openUnits++;
      } else {
        if (openUnits !== 0) {
          putRun(view, out + runs * RUN_BYTES, openKind, openUnits, openHost, openBytes);
          runs++;
        }
        if (runs === outMax) return runs;
        openKind = kind;
        openUnits = 1;
        openHost = host;
        openBytes = bytes;
      }
      openNext = next;
    }
    if (openUnits !== 0) {
      putRun(view, out + runs * RUN_BYTES, openKind, openUnits, openHost, openBytes);
      runs++;
    }
    return runs;
  };
