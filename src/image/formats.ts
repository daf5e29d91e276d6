/** Which formats there are, and how a file's first bytes tell them apart. */
import { isQcow2 } from '../format/header.ts';
import { isLuks } from '../format/luks-header.ts';
import type { Storage } from '../storage/storage.ts';

/** Formats by the names that people and images give them. */
export const FORMATS = ['raw', 'qcow2', 'luks'] as const;
export type Format = (typeof FORMATS)[number];

/** True for a format name that this library reads. */
export function isFormat(name: string): name is Format {
  return (FORMATS as readonly string[]).includes(name);
}

/** What a file is, by its first bytes. What is not qcow2 is raw. */
export async function probeFormat(storage: Storage): Promise<Format> {
  const head = new Uint8Array(8);
  const got = await storage.read(0, head);
  const bytes = head.subarray(0, got);
  if (isLuks(bytes)) return 'luks';
  return isQcow2(bytes) ? 'qcow2' : 'raw';
}
