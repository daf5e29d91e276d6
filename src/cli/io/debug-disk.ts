/** A disk whose requests fail by rules, and fit limits: `blkdebug` above a format. */
import type { Disk, WritableDisk } from '../../image/disk.ts';
import type { DebugLimits } from '../../storage/debug-limits.ts';
import { DebugRequests } from '../../storage/debug-requests.ts';
import type { DebugRules } from '../../storage/debug-rules.ts';
import { standIn } from '../../storage/stand-in.ts';
import type { Host } from '../command.ts';
import { debugLimits, debugRules } from '../debug-settings.ts';
import type { DebugNode } from '../image-node.ts';

/** The same disk, the rules that its requests meet, and the limits that they have to fit. */
export interface DebuggedDisk {
  readonly disk: Disk;
  readonly rules: DebugRules;
  readonly limits: DebugLimits | undefined;
}

/**
 * @param node what the disk is named by, with rules and limits
 * @throws Qcow2Error OUT_OF_RANGE or IO, in QEMU's words
 */
export function debugDisk(host: Host, node: DebugNode, disk: Disk): DebuggedDisk {
  const rules = debugRules(host, node.config, node.settings);
  const limits = debugLimits(node.settings);
  const writable = 'write' in disk ? (disk as WritableDisk) : undefined;
  const target = {
    // An aligned request may reach past the end.
    async read(at: number, into: Uint8Array) {
      const length = Math.max(0, Math.min(into.length, disk.size - at));
      if (length > 0) await disk.read(at, into.subarray(0, length));
      return length;
    },
    async write(at: number, from: Uint8Array) {
      await writable?.write(at, from.subarray(0, Math.max(0, disk.size - at)));
    },
  };
  const requests = new DebugRequests(target, rules, limits);
  const own: { -readonly [K in keyof WritableDisk]?: WritableDisk[K] } = {
    read: async (guest, into) => {
      await requests.read(guest, into);
    },
  };
  if (writable) {
    own.write = async (guest, from) => requests.write(guest, from);
    own.zero = async (guest, length, options) =>
      requests.zero(guest, length, (at, bytes) => writable.zero(at, bytes, options));
    own.discard = async (guest, length) =>
      requests.discard(guest, length, (at, bytes) => writable.discard(at, bytes));
    own.flush = async () => requests.flush(() => writable.flush());
  }
  return { disk: standIn(disk as WritableDisk, own), rules, limits };
}
