/**
 * Rules of `blkdebug` as people write them: settings `inject-error.0.event=…`, or a file:
 *
 *   [inject-error]
 *   event = "l2_load"
 *   errno = "5"
 */

import { Qcow2Error } from '../base/errors.ts';
import { decodeText } from '../base/text.ts';
import {
  DEBUG_EVENTS,
  DEBUG_REQUESTS,
  type DebugEvent,
  type DebugRequest,
} from '../storage/debug-events.ts';
import type { DebugLimits } from '../storage/debug-limits.ts';
import { DebugRules, type InjectRule, type StateRule } from '../storage/debug-rules.ts';
import type { Host } from './command.ts';
import { numberOf, type Settings, settingsUnder, switchOf, textOf } from './settings.ts';

/** What a rule is made of. */
const RULE_SETTINGS = {
  'inject-error': ['event', 'state', 'iotype', 'errno', 'sector', 'once', 'immediately'],
  'set-state': ['event', 'state', 'new_state'],
} as const;
type Group = keyof typeof RULE_SETTINGS;

const EIO = 5;
const SECTOR_BYTES = 512;
/** Larger files are no rules. */
const CONFIG_BYTES_MAX = 2 ** 20;
/** More would be looked at for each request. */
const RULES_MAX = 4096;

interface Section {
  readonly group: Group;
  readonly values: Map<string, string>;
}

function wrong(message: string): Qcow2Error {
  return new Qcow2Error('OUT_OF_RANGE', message);
}

/**
 * @param config path of a file with rules
 * @param settings those of the node
 * @throws Qcow2Error OUT_OF_RANGE or IO, in QEMU's words
 */
export function debugRules(host: Host, config: string | undefined, settings: Settings) {
  const sections = [
    ...(config === undefined ? [] : parseConfig(readConfig(host, config))),
    ...sectionsOf(settings),
  ];
  if (sections.length > RULES_MAX) throw wrong(`more than ${RULES_MAX} rules`);
  const of = (group: Group) => sections.filter((section) => section.group === group);
  const inject = of('inject-error').map(({ values }) => injectRule(values));
  const states = of('set-state').map(({ values }) => stateRule(values));
  return new DebugRules(inject, states);
}

/** No request is that long. */
const LIMIT_MAX = 2 ** 31 - 1;

/**
 * The driver's own settings about requests; undefined where there are none.
 * @throws Qcow2Error OUT_OF_RANGE for those that do not go together
 */
export function debugLimits(settings: Settings): DebugLimits | undefined {
  const limit = (name: string, unit: number) => {
    const value = numberOf(settings, name) ?? 0;
    if (value >= LIMIT_MAX || value % unit !== 0) {
      throw wrong(`Cannot meet constraints with ${name} ${value}`);
    }
    return value;
  };
  const given = limit('align', 1);
  const align = given || 1;
  if (!Number.isInteger(Math.log2(align)))
    throw wrong(`Cannot meet constraints with align ${align}`);
  const maxTransfer = limit('max-transfer', align);
  const optWriteZero = limit('opt-write-zero', align);
  const maxWriteZero = limit('max-write-zero', Math.max(optWriteZero, align));
  const optDiscard = limit('opt-discard', align);
  const maxDiscard = limit('max-discard', Math.max(optDiscard, align));
  const others = { maxTransfer, optWriteZero, maxWriteZero, optDiscard, maxDiscard };
  const isLimited = align > 1 || Object.values(others).some((value) => value > 0);
  return isLimited ? { align, ...others } : undefined;
}

function readConfig(host: Host, path: string): string {
  try {
    const storage = host.openFile(path);
    try {
      const bytes = new Uint8Array(Math.min(CONFIG_BYTES_MAX, storage.size()));
      return decodeText(bytes.subarray(0, storage.read(0, bytes)));
    } finally {
      storage.close();
    }
  } catch (cause) {
    const why = (cause as Error).message.replace(/^Could not open '.*': /, '');
    throw new Qcow2Error('IO', `Could not read blkdebug config file: ${why}`, undefined, cause);
  }
}

/** QEMU's configuration files: `[group]` or `[group "name"]`, then `name = "value"`. */
function parseConfig(text: string): Section[] {
  const sections: Section[] = [];
  for (const line of text.split('\n')) {
    if (line === '' || line.startsWith('#')) continue;
    const group = /^\[([^\]\s"]+)(?: "[^"]*")?\]/.exec(line)?.[1];
    if (group !== undefined) {
      if (!(group in RULE_SETTINGS)) throw wrong(`There is no option group '${group}'`);
      sections.push({ group: group as Group, values: new Map() });
      continue;
    }
    // As C's `sscanf` takes words: a name ends at a space, and what has no quotes has no value.
    const [, name, rest = ''] = /^\s*(\S{1,63})(.*)/.exec(line) ?? [];
    if (name === undefined) throw wrong('parse error');
    if (sections.length === 0) throw wrong('no group defined');
    const [, value = ''] = /^\s*=\s*"([^"]*)/.exec(`${rest}\n`) ?? [];
    const last = sections.at(-1) as Section;
    if (!(RULE_SETTINGS[last.group] as readonly string[]).includes(name)) {
      throw wrong(`Invalid parameter '${name}'`);
    }
    last.values.set(name, value);
  }
  return sections;
}

/** `inject-error.0.event=…`: numbered without gaps, or a single one without a number. */
function sectionsOf(settings: Settings): Section[] {
  const sections: Section[] = [];
  for (const group of Object.keys(RULE_SETTINGS) as Group[]) {
    const own = settingsUnder(settings, group);
    if (own.size === 0) continue;
    const known: readonly string[] = RULE_SETTINGS[group];
    const isList = [...own.keys()].some((name) => /^\d+\./.test(name));
    for (let index = 0; ; index++) {
      const values = new Map(isList ? settingsUnder(own, `${index}`) : own);
      if (values.size === 0) break;
      const unknown = [...values.keys()].find((name) => !known.includes(name));
      if (unknown !== undefined) {
        throw wrong(`[${group}] section doesn't support the option '${unknown}'`);
      }
      sections.push({ group, values });
      if (!isList) break;
    }
  }
  return sections;
}

function injectRule(values: Settings): InjectRule {
  const sector = numberIn(values, 'sector', -1);
  const errno = numberIn(values, 'errno', EIO);
  const kind = textOf(values, 'iotype');
  switchOf(values, 'immediately');
  return {
    event: eventIn(values),
    state: numberIn(values, 'state', 0),
    errno,
    once: switchOf(values, 'once') ?? false,
    at: sector < 0 ? undefined : sector * SECTOR_BYTES,
    requests: new Set<DebugRequest>(
      kind === undefined
        ? DEBUG_REQUESTS.filter((one) => one !== 'block-status')
        : [oneIn(DEBUG_REQUESTS, kind)],
    ),
  };
}

function stateRule(values: Settings): StateRule {
  const newState = numberIn(values, 'new_state', 0);
  return { event: eventIn(values), state: numberIn(values, 'state', 0), newState };
}

function eventIn(values: Settings): DebugEvent {
  const name = textOf(values, 'event');
  if (name === undefined) throw wrong('Missing event name for rule');
  return oneIn(DEBUG_EVENTS, name);
}

/** One of some names. @throws Qcow2Error OUT_OF_RANGE for another one */
export function oneIn<T extends string>(names: readonly T[], value: string): T {
  const found = names.find((name) => name === value);
  if (found === undefined) throw wrong(`invalid parameter value: ${value}`);
  return found;
}

function numberIn(values: Settings, name: string, absent: number): number {
  const text = textOf(values, name);
  if (text === undefined) return absent;
  if (!/^\s*[+-]?(0x[0-9a-f]+|\d+)$/i.test(text)) {
    throw wrong(`Parameter '${name}' expects a number`);
  }
  return Number(text);
}
