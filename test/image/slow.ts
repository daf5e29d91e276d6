/** Whether the long versions of tests are asked for, in Node's environment or in a page. */

interface Host {
  readonly SLOW?: string;
  readonly process?: { readonly env: { readonly SLOW?: string } };
}

const host = globalThis as unknown as Host;

/** SLOW=1: take the time that it takes. */
export const SLOW = Boolean(host.SLOW ?? host.process?.env.SLOW);
