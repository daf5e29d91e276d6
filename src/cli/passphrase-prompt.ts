/** Asking for a passphrase on a terminal, which shows nothing of it. */
import { isatty, ReadStream } from 'node:tty';

const STDIN = 0;
const STDERR = 2;
const INTERRUPT = '\u0003';
const END = '\u0004';
const ERASE = ['\u007f', '\b'];

/** @returns how a person can be asked; undefined where nobody sits at a terminal */
export function passphrasePrompt(
  note: (text: string) => void,
): ((prompt: string) => Promise<string | undefined>) | undefined {
  if (!isatty(STDIN) || !isatty(STDERR)) return undefined;
  return (prompt) =>
    new Promise((resolve) => {
      const input = new ReadStream(STDIN);
      // First: what is typed as soon as the question is there is not shown either.
      input.setRawMode(true);
      note(prompt);
      let typed = '';
      const finish = (answer: string | undefined) => {
        input.setRawMode(false);
        input.destroy();
        note('\n');
        resolve(answer);
      };
      input.setEncoding('utf8');
      input.on('data', (text: string) => {
        for (const char of text) {
          if (char === '\r' || char === '\n' || char === END) return finish(typed);
          if (char === INTERRUPT) {
            finish(undefined);
            process.kill(process.pid, 'SIGINT');
            return;
          }
          typed = ERASE.includes(char) ? [...typed].slice(0, -1).join('') : typed + char;
        }
      });
    });
}
