/** The hosts' cryptography that a suite runs over: what this host has, and what browsers have. */
import { hostPlatform, type Platform } from '../../src/crypto/platform.ts';
import { nodeCrypto } from '../../src/crypto/platform-node.ts';
import { webPlatform } from '../../src/crypto/platform-web.ts';

export const platforms: readonly (readonly [string, Platform])[] = nodeCrypto()
  ? [
      ['node', hostPlatform()],
      ['web', webPlatform],
    ]
  : [['web', webPlatform]];

/** Bytes of a hexadecimal text. */
export const hex = (text: string): Uint8Array =>
  Uint8Array.from(text.match(/../g) ?? [], (pair) => Number(`0x${pair}`));

/** The opposite of `hex`. */
export const toHex = (bytes: Uint8Array): string =>
  Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');

/** Where two arrays differ, in few words: large ones make a test library's own message crawl. */
export function unequal(a: Uint8Array, b: Uint8Array): string {
  if (a.length !== b.length) return `${a.length} bytes, not ${b.length}`;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return `byte ${i}: ${a[i]}, not ${b[i]}`;
  return '';
}
