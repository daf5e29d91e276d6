/** Secrets that the command line has defined (`object-definition.ts`). */
import { Qcow2Error } from '../base/errors.ts';

/** Secrets by their names. */
export class Secrets {
  private readonly known = new Map<string, Uint8Array>();

  has(id: string): boolean {
    return this.known.has(id);
  }

  set(id: string, bytes: Uint8Array): void {
    this.known.set(id, bytes);
  }

  /** @throws Qcow2Error UNSUPPORTED where there is none of this name */
  bytesOf(id: string): Uint8Array {
    const bytes = this.known.get(id);
    if (!bytes) throw new Qcow2Error('UNSUPPORTED', `No secret with id '${id}'`);
    return bytes;
  }

  /** @throws Qcow2Error UNSUPPORTED where there is none of this name, or it is no text */
  passphrase(id: string): Uint8Array {
    const bytes = this.bytesOf(id);
    try {
      new TextDecoder('utf-8', { fatal: true }).decode(bytes);
    } catch {
      throw new Qcow2Error('UNSUPPORTED', `Data from secret ${id} is not valid UTF-8`);
    }
    return bytes;
  }
}
