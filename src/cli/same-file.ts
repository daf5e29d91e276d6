/** Whether files that were opened by different names are one. */
import type { Host } from './command.ts';

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
