/** Whether files that were opened by different names are one. */
import type { Disk } from '../image/disk.ts';
import { type Host, UsageError } from './command.ts';

/** Compares storages by the real paths of their names. */
export function sameFileBy(host: Host) {
  const paths = new Map<string, string>();
  const real = (name: string) => {
    const known = paths.get(name) ?? host.realPath(name);
    paths.set(name, known);
    return known;
  };
  return (a: { readonly name: string }, b: { readonly name: string }) => {
    return real(a.name) === real(b.name);
  };
}

/**
 * Writing the target must not destroy what is to be read: no file of any source's chain.
 * @throws UsageError
 */
export function refuseSourceAsTarget(host: Host, target: string, disks: readonly Disk[]): void {
  if (!host.exists(target)) return;
  const real = host.realPath(target);
  for (const { storage } of disks.flatMap(({ sources }) => sources)) {
    if (host.exists(storage.name) && host.realPath(storage.name) === real) {
      throw new UsageError(`'${target}' is both a source and the target`);
    }
  }
}
