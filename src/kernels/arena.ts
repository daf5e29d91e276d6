/**
 * Linear memory for the control plane: regions that images reserve while a chain is being opened,
 * all in one memory that is made at first use and never grows (growing would detach views that a
 * read may be filling). Pages that nothing touches cost nothing.
 */

import { alignUp } from '../base/bits.ts';
import { assert, Qcow2Error } from '../base/errors.ts';
import { ARENA_BASE, INPUT_SLACK, type Kernels } from './kernels.ts';
import { wasmKernels } from './wasm.ts';

const PAGE_BYTES = 65536;
const ALIGN = 64;

/** One memory with its kernels, shared by the images of a chain. */
export class Workspace {
  private end = ARENA_BASE;
  private bound: Kernels | undefined;

  /** Sets bytes aside. Only before the first use of any region. */
  reserve(bytes: number): Region {
    assert(this.bound === undefined, 'a workspace in use cannot reserve more');
    const at = this.end;
    this.end = alignUp(at + bytes, ALIGN);
    return new Region(this, at, bytes);
  }

  /** The kernels over this workspace's memory. */
  get kernels(): Kernels {
    if (this.bound === undefined) {
      const pages = alignUp(this.end + INPUT_SLACK, PAGE_BYTES) / PAGE_BYTES;
      this.bound = wasmKernels(makeMemory(pages));
    }
    return this.bound;
  }
}

/** A memory that never grows. Hosts set aside gigabytes of addresses for it, or have none left. */
function makeMemory(pages: number): WebAssembly.Memory {
  try {
    return new WebAssembly.Memory({ initial: pages, maximum: pages });
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    throw new Qcow2Error('IO', 'Could not allocate memory for the kernels', undefined, cause);
  }
}

/** A range of a workspace's memory. */
export class Region {
  private view: Uint8Array | undefined;

  constructor(
    private readonly workspace: Workspace,
    /** Byte address: what kernels take. */
    readonly at: number,
    readonly length: number,
  ) {}

  get kernels(): Kernels {
    return this.workspace.kernels;
  }

  /** The region's bytes. */
  get bytes(): Uint8Array {
    this.view ??= new Uint8Array(this.kernels.memory.buffer, this.at, this.length);
    return this.view;
  }
}
