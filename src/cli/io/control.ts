/** Commands about the tool itself: `help`, `quit`, `sleep`, and ways to end it the hard way. */
import { DEBUG_EVENTS } from '../../storage/debug-events.ts';
import type { DebugRules } from '../../storage/debug-rules.ts';
import { parseInteger } from '../options.ts';
import { CommandFailure, type IoCommand, usageLine } from './io-command.ts';
import { ABORT_SIGNAL } from './io-host.ts';
import { parseBytes } from './number.ts';
import type { Session } from './session.ts';

/** The longest time that a timer takes, in milliseconds. */
const SLEEP_MS_MAX = 2 ** 31 - 1;
/** One more than there are: QEMU's tool lets it pass, and nothing happens. */
const SIGNAL_MAX = 65;

/** `help`. */
export const help: IoCommand = {
  name: 'help',
  alias: '?',
  synopsis: '[command]',
  summary: 'help for one or all commands',
  count: [0, 1],
  needs: 'nothing',

  async run({ host }, [name]) {
    const { COMMANDS, findCommand } = await import('./commands.ts');
    if (name === undefined) {
      const lines = COMMANDS.map((command) => `${usageLine(command, command.name)}\n`);
      host.out(`${lines.join('')}\nUse 'help commandname' for extended help.\n`);
      return;
    }
    const command = findCommand(name);
    if (!command) throw new CommandFailure(`command ${name} not found`);
    host.out(`${usageLine(command, name)}\n${command.details ?? ''}`);
  },
};

/** `quit`. */
export const quit: IoCommand = {
  name: 'quit',
  alias: 'q',
  summary: 'exit the program',
  needs: 'nothing',

  async run(session) {
    session.done = true;
  },
};

/** `sleep`. Requests in the background go on, and those that are over report. */
export const sleep: IoCommand = {
  name: 'sleep',
  summary: 'waits for the given value in milliseconds',
  count: [1, 1],
  needs: 'nothing',

  async run(session, [text]) {
    const time = parseInteger(text!);
    if (time === undefined || time < 0) throw new CommandFailure(`${text} is not a valid number`);
    await new Promise((resolve) => setTimeout(resolve, Math.min(time, SLEEP_MS_MAX)));
    session.report();
  },
};

/** `abort`: what a crash leaves behind. Nothing is flushed or closed. */
export const abort: IoCommand = {
  name: 'abort',
  summary: 'simulate a program crash using abort(3)',
  needs: 'nothing',

  async run({ host }) {
    host.raise(ABORT_SIGNAL);
  },
};

/** `sigraise`. */
export const sigraise: IoCommand = {
  name: 'sigraise',
  synopsis: 'signal',
  summary: 'raises a signal',
  details: `
Sends this process a signal by its number.
`,
  count: [1, 1],
  needs: 'nothing',

  async run(session, args) {
    const signal = parseBytes(session, args[0]!);
    if (signal > SIGNAL_MAX) {
      const what = `signal argument '${args[0]}'`;
      throw new CommandFailure(`${what} is too large to be a valid signal`);
    }
    session.host.raise(signal);
  },
};

/** The rules before the open disk. @throws CommandFailure where there are none */
function rulesOf(session: Session, failure: string): DebugRules {
  const { rules } = session.current;
  if (rules) return rules;
  throw new CommandFailure(`${failure}: Operation not supported`);
}

/** `break`. */
export const setBreak: IoCommand = {
  name: 'break',
  synopsis: 'event tag',
  summary: 'sets a breakpoint on event and tags the stopped request as tag',
  count: [2, 2],
  needs: 'disk',

  async run(session, [name, tag]) {
    const failure = 'Could not set breakpoint';
    const rules = rulesOf(session, failure);
    const event = DEBUG_EVENTS.find((one) => one === name);
    if (event === undefined) throw new CommandFailure(`${failure}: No such file or directory`);
    rules.onHold = (of, what) => {
      const happened = what === 'held' ? 'Suspended' : 'Resuming';
      session.host.out(`blkdebug: ${happened} request '${of}'\n`);
    };
    rules.addBreak(event, tag!);
  },
};

/** `remove_break`. */
export const removeBreak: IoCommand = {
  name: 'remove_break',
  synopsis: 'tag',
  summary: 'remove a breakpoint by tag',
  count: [1, 1],
  needs: 'disk',

  async run(session, [tag]) {
    const failure = `Could not remove breakpoint ${tag}`;
    if (rulesOf(session, failure).removeBreak(tag!)) return;
    throw new CommandFailure(`${failure}: No such file or directory`);
  },
};

/** `resume`. */
export const resume: IoCommand = {
  name: 'resume',
  synopsis: 'tag',
  summary: 'resumes the request tagged as tag',
  count: [1, 1],
  needs: 'disk',

  async run(session, [tag]) {
    const failure = 'Could not resume request';
    if (!rulesOf(session, failure).resume(tag!)) {
      throw new CommandFailure(`${failure}: No such file or directory`);
    }
    // The request goes on as far as it gets at once, as it does in QEMU.
    await new Promise((resolve) => setTimeout(resolve));
  },
};

/** `wait_break`. It waits for ever where there is no breakpoint, as QEMU's does. */
export const waitBreak: IoCommand = {
  name: 'wait_break',
  synopsis: 'tag',
  summary: 'waits for the suspension of a request',
  count: [1, 1],
  needs: 'disk',

  async run(session, [tag]) {
    await rulesOf(session, 'Could not wait for a request').whenHeld(tag!);
  },
};
