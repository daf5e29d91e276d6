/**
 * Image locks as QEMU's file driver takes them, so that its programs and ours keep out of each
 * other's way. A permission is two bytes of the image file, which need not exist; each is only
 * ever locked shared:
 *
 *   100 + n  "I do n"                    0 consistent read · 1 write
 *   200 + n  "I do not let others do n"  2 write unchanged · 3 resize
 *
 * Who takes the one then asks whether any other open file has the counterpart, and gives way if
 * so. The locks are Linux's "open file description" locks: they go when the file is closed.
 *
 * Linux lists all locks in /proc/locks, by device and inode. That is how those who have no way to
 * lock still see others, though they are not seen themselves. It is no short cut for the rest:
 * opening the list waits for all processors, 6 to 16 ms, longer than it takes to lock.
 */
import { fstatSync, readFileSync } from 'node:fs';
import { Qcow2Error } from '../base/errors.ts';
import { type Libc, libc, type SystemError } from './native-libc.ts';

const USES_AT = 100;
const SHUTS_AT = 200;

/** Permissions by QEMU's names for them, in the order of their bytes. */
const PERMISSIONS = ['consistent read', 'write', 'write unchanged', 'resize'] as const;
type Permission = (typeof PERMISSIONS)[number];

/** What an open file is for, as far as others are concerned. */
export interface Claim {
  /** What we do. */
  readonly uses: readonly Permission[];
  /** What nobody else may do meanwhile. */
  readonly shuts: readonly Permission[];
}

/** What a file is claimed for while it is made or emptied. */
export const CREATING: Claim = { uses: ['write', 'resize'], shuts: ['resize'] };

/** Starts the second line of a refusal: QEMU's hint. */
const LOCK_HINT = 'Is another process using the image [';

/** An open file, and its name for messages. */
interface OpenFile {
  readonly fd: number;
  readonly name: string;
}

/**
 * Claims an open file until it is closed.
 * @throws Qcow2Error BUSY with QEMU's message where another has a claim that this one excludes;
 * IO where the file system has no locks
 */
export function claimFile(file: OpenFile, claim: Claim): void {
  if (process.platform !== 'linux') return;
  const native = libc();
  if (native) take(native, file, claim);
  else refuseListed(file, claim);
}

/** Gives a claim up before the file is closed. */
export function releaseClaim({ fd }: OpenFile, claim: Claim): void {
  const native = libc();
  if (native) for (const at of ownBytes(claim)) native.unlockByte(fd, at);
}

/** Bytes that a claim locks, and those that no other may have locked. */
const bytesOf = (permissions: readonly Permission[], from: number) =>
  permissions.map((permission) => from + PERMISSIONS.indexOf(permission));
const ownBytes = ({ uses, shuts }: Claim) => [
  ...bytesOf(uses, USES_AT),
  ...bytesOf(shuts, SHUTS_AT),
];

function take(native: Libc, file: OpenFile, claim: Claim): void {
  for (const at of ownBytes(claim)) {
    try {
      native.lockByte(file.fd, at);
    } catch (cause) {
      const busy = ['EAGAIN', 'EACCES'].includes((cause as SystemError).code);
      throw refusal(file, `Failed to lock byte ${at}`, { cause, busy });
    }
  }
  refuseConflicts(file, claim, (at) => {
    try {
      return native.isByteLocked(file.fd, at);
    } catch {
      return true;
    }
  });
}

/** Asks for the counterparts of a claim, in QEMU's order. */
function refuseConflicts(file: OpenFile, claim: Claim, isLocked: (at: number) => boolean): void {
  for (const permission of claim.uses) {
    if (bytesOf([permission], SHUTS_AT).some(isLocked)) {
      throw refusal(file, `Failed to get "${permission}" lock`, { busy: true });
    }
  }
  for (const permission of claim.shuts) {
    if (bytesOf([permission], USES_AT).some(isLocked)) {
      throw refusal(file, `Failed to get shared "${permission}" lock`, { busy: true });
    }
  }
}

function refusal(
  { name }: OpenFile,
  what: string,
  { busy, cause }: { readonly busy: boolean; readonly cause?: unknown },
): Qcow2Error {
  const byte = what.startsWith('Failed to lock byte');
  const message = byte ? what : `${what}\n${LOCK_HINT}${name}]?`;
  return new Qcow2Error(busy ? 'BUSY' : 'IO', message, undefined, cause);
}

/** What Linux gives of a list at once, at most. */
const PAGE_BYTES = 4000;

/** Bytes [first, last] that are locked. */
interface ListedLock {
  readonly first: number;
  readonly last: number;
}

/**
 * Locks on a file, as the system lists them.
 *
 *   1: OFDLCK ADVISORY  READ -1 fe:00:2146938 100 101
 *   number: kind, how strict, type, process, device and inode, first and last byte or EOF
 *
 * Some file systems (btrfs, overlays) tell `stat` another device than they list: their locks are
 * not seen, for those of a file that merely has the same number would be taken for them.
 */
function listedLocks(fd: number): ListedLock[] {
  let list = '';
  try {
    list = readFileSync('/proc/locks', 'latin1');
    // A page is given at a time, and the next one is found by counting: where a lock goes away in
    // between, one is passed over. Not the same one in each of several readings.
    if (list.length >= PAGE_BYTES) {
      for (let more = 0; more < 3; more++) list += readFileSync('/proc/locks', 'latin1');
    }
  } catch {
    return [];
  }
  const { dev, ino } = fstatSync(fd, { bigint: true });
  const line = /^\d+: (?:OFDLCK|POSIX) .* ([0-9a-f]+):([0-9a-f]+):(\d+) (\d+) (\d+|EOF)$/gm;
  return [...list.matchAll(line)]
    .filter(([, major, minor, inode]) => {
      return inode === `${ino}` && dev === deviceNumber(`0x${major}`, `0x${minor}`);
    })
    .map(([, , , , first, last]) => ({
      first: Number(first),
      last: last === 'EOF' ? Number.POSITIVE_INFINITY : Number(last),
    }));
}

/** Linux's layout of a device number: 8 bits of the minor, 12 of the major, the minor's rest. */
function deviceNumber(major: string, minor: string): bigint {
  const low = BigInt(minor);
  return (low & 0xffn) | (BigInt(major) << 8n) | ((low & ~0xffn) << 12n);
}

function refuseListed(file: OpenFile, claim: Claim): void {
  const locks = listedLocks(file.fd);
  refuseConflicts(file, claim, (at) => locks.some(({ first, last }) => first <= at && at <= last));
}
