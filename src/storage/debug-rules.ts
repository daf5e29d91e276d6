/**
 * Rules of QEMU's blkdebug driver, carried out. A rule waits for an event, and maybe for a state
 * of its own counting; then it changes the state, makes requests fail from there on, or holds the
 * one who came along. All is in order: the same requests meet the same failures on every run.
 */
import type { Awaitable } from '../base/awaitable.ts';
import type { DebugEvent, DebugRequest } from './debug-events.ts';

/** Makes requests fail after an event. */
export interface InjectRule {
  readonly event: DebugEvent;
  /** The state that the rule is for; 0 is any. */
  readonly state: number;
  /** Number of the error, as in Linux; 0 hides other rules, and nothing fails. */
  readonly errno: number;
  /** Gone after the first failure. */
  readonly once: boolean;
  /** Byte offset that a request must touch. Undefined: any request fails. */
  readonly at: number | undefined;
  readonly requests: ReadonlySet<DebugRequest>;
}

/** Changes the state at an event. */
export interface StateRule {
  readonly event: DebugEvent;
  readonly state: number;
  readonly newState: number;
}

type Rule =
  | (InjectRule & { readonly action: 'inject' })
  | (StateRule & { readonly action: 'state' })
  | {
      readonly action: 'hold';
      readonly event: DebugEvent;
      readonly state: 0;
      readonly tag: string;
    };

/** One who was held at a breakpoint. */
interface Held {
  readonly tag: string;
  readonly go: () => void;
}

/** The state of a set of rules. */
export class DebugRules {
  /** The youngest first, the order in which QEMU's driver looks at them. */
  private readonly rules: Rule[] = [];
  /** Hears who is held at a breakpoint, and who goes on. */
  onHold: (tag: string, what: 'held' | 'resumed') => void = () => {};
  /** Those that make requests fail now. */
  private active: InjectRule[] = [];
  private state = 1;
  private held: Held[] = [];
  /** Who waits for somebody to be held; without a tag, for anybody. */
  private waiting: { readonly tag: string | undefined; readonly done: () => void }[] = [];

  constructor(inject: readonly InjectRule[], states: readonly StateRule[]) {
    for (const rule of inject) this.rules.unshift({ ...rule, action: 'inject' });
    for (const rule of states) this.rules.unshift({ ...rule, action: 'state' });
    this.happens('none');
  }

  /** @returns a promise where the one who announces the event is to be held */
  happens(event: DebugEvent): Awaitable<void> {
    let newState = this.state;
    const fresh: InjectRule[] = [];
    let holding: Promise<void> | undefined;
    for (const rule of [...this.rules]) {
      if (rule.event !== event || (rule.state !== 0 && rule.state !== this.state)) continue;
      if (rule.action === 'inject') fresh.unshift(rule);
      else if (rule.action === 'state') newState = rule.newState;
      else holding = this.hold(rule, holding);
    }
    if (fresh.length > 0) this.active = fresh;
    this.state = newState;
    return holding;
  }

  /** The number of the error that a request meets; 0 for none. */
  failure(request: DebugRequest, at: number, length: number): number {
    const rule = this.active.find((one) => {
      if (!one.requests.has(request)) return false;
      return one.at === undefined || (one.at >= at && one.at < at + length);
    });
    if (!rule) return 0;
    if (rule.errno !== 0 && rule.once) {
      this.active = this.active.filter((one) => one !== rule);
      this.forget(rule as Rule);
    }
    return rule.errno;
  }

  /** Holds the next one who announces the event. */
  addBreak(event: DebugEvent, tag: string): void {
    this.rules.unshift({ action: 'hold', event, state: 0, tag });
  }

  /** Takes breakpoints away, and lets go who is held there. @returns false where there is none */
  removeBreak(tag: string): boolean {
    const rules = this.rules.filter((rule) => rule.action === 'hold' && rule.tag === tag);
    for (const rule of rules) this.forget(rule);
    const held = this.held.some((one) => one.tag === tag);
    while (this.resume(tag));
    return held || rules.length > 0;
  }

  /** Lets one go who is held there. @returns false where there is none */
  resume(tag: string): boolean {
    const index = this.held.findIndex((one) => one.tag === tag);
    if (index < 0) return false;
    const [found] = this.held.splice(index, 1);
    this.onHold(tag, 'resumed');
    found?.go();
    return true;
  }

  /** Resolves when somebody is held there. */
  whenHeld(tag: string): Promise<void> {
    if (this.held.some((one) => one.tag === tag)) return Promise.resolve();
    return new Promise((done) => this.waiting.push({ tag, done }));
  }

  /** Resolves when somebody is held anywhere. */
  whenAnyHeld(): Promise<void> {
    if (this.held.length > 0) return Promise.resolve();
    return new Promise((done) => this.waiting.push({ tag: undefined, done }));
  }

  private hold(rule: Rule & { readonly action: 'hold' }, before: Promise<void> | undefined) {
    this.forget(rule);
    const { tag } = rule;
    this.onHold(tag, 'held');
    const own = new Promise<void>((go) => this.held.push({ tag, go }));
    const wanted = ({ tag: of = tag }: { readonly tag: string | undefined }) => of === tag;
    for (const one of this.waiting.filter(wanted)) one.done();
    this.waiting = this.waiting.filter((waiter) => !wanted(waiter));
    return before ? before.then(() => own) : own;
  }

  private forget(rule: Rule): void {
    const index = this.rules.indexOf(rule);
    if (index >= 0) this.rules.splice(index, 1);
  }
}
