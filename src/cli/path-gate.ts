/**
 * The command line's gate: names inside images are paths, relative ones counted from the folder of
 * the image that has them, as people expect of an image tool. `--untrusted` keeps them in the
 * folder of the image that was named on the command line.
 */
import { Qcow2Error } from '../base/errors.ts';
import type { Gate } from '../image/gate.ts';
import type { GateOptions, Host } from './command.ts';
import { claimImageFile } from './image-claims.ts';

/** A scheme before the first slash: `nbd:`, `json:`. */
const PROTOCOL = /^([^/:]+):/;

/** Schemes of what is opened by its name, and not made. */
const NEVER_MADE = ['blkdebug', 'null-aio', 'null-co'];

/**
 * The path that a name inside an image means.
 * @param from path of the image that has the name
 * @throws Qcow2Error REFUSED for a name that is no path
 */
export function resolveName(name: string, from: string): string {
  const scheme = PROTOCOL.exec(name)?.[1];
  // A name with a scheme is not relative to the image, as QEMU has it.
  if (scheme === 'file') return pathBehind(name, scheme);
  if (scheme !== undefined) throw new Qcow2Error('REFUSED', `Unknown protocol '${scheme}'`);
  return beside(name, from);
}

function beside(name: string, from: string): string {
  return name.startsWith('/') ? name : from.slice(0, from.lastIndexOf('/') + 1) + name;
}

/** The path behind a scheme. */
export function pathBehind(name: string, scheme: string): string {
  const path = name.slice(scheme.length + 1);
  // By itself, what stands before a colon would be another scheme.
  return PROTOCOL.test(path) ? `./${path}` : path;
}

/**
 * The path of an image that a person wants to be made.
 * @throws Qcow2Error REFUSED for a name that is no path
 */
export function newPath(name: string): string {
  const scheme = PROTOCOL.exec(name)?.[1];
  if (scheme !== undefined && NEVER_MADE.includes(scheme)) {
    const message = `Protocol driver '${scheme}' does not support image creation`;
    throw new Qcow2Error('REFUSED', message);
  }
  return resolveName(name, '');
}

/** @param first the image that the person named */
export function pathGate(host: Host, first: string, options: GateOptions): Gate {
  const { untrusted, claim, driver } = options;
  return ({ kind, name, from, writable }) => {
    const path = kind === 'data-file' ? dataPath(host, name, from) : resolveName(name, from);
    if (untrusted) confine(host, path, first);
    const file = host.openFile(path, { writable, driver });
    try {
      if (claim) {
        const own = { ...claim, use: writable ? 'write' : claim.use } as const;
        claimImageFile(file, kind === 'data-file' ? kind : claim.part, own);
      }
      return file;
    } catch (cause) {
      file.close();
      throw cause;
    }
  };
}

/** The name of a data file is a path, whatever it looks like. */
function dataPath(host: Host, name: string, from: string): string {
  const path = beside(name, from);
  // QEMU counts it from the current directory, where it makes the file.
  return host.exists(path) ? path : beside(name, '');
}

function confine(host: Host, path: string, first: string): void {
  const folder = host.realPath(first).replace(/[^/]*$/, '');
  const real = host.realPath(path);
  if (!real.startsWith(folder)) {
    throw new Qcow2Error('REFUSED', `'${path}' lies outside of the image's folder`);
  }
}
