/** Names of files as Node takes them. */
import { encodeText, hasStrayBytes } from '../base/text.ts';

/** What to give Node for a name: its bytes, where they are not all characters. */
export function hostPath(name: string): string | Buffer {
  return hasStrayBytes(name) ? Buffer.from(encodeText(name)) : name;
}
