/** `completion bash|zsh|fish`: what a shell needs to complete command lines. */
import {
  type CommandHelp,
  choicesOf,
  describeCommands,
  GLOBAL_OPTIONS,
  type OptionHelp,
} from './description.ts';

/** The script for a shell; undefined for shells that are not known. */
export function completionScript(
  shell: string | undefined,
  program: string,
  names: readonly string[],
): string | undefined {
  const commands = describeCommands(names);
  if (shell === 'bash') return bashScript(program, commands);
  if (shell === 'zsh') return zshScript(program, commands);
  return shell === 'fish' ? fishScript(program, commands) : undefined;
}

const SHELLS = ['bash', 'zsh', 'fish'];

const optionsOf = ({ options }: CommandHelp): OptionHelp[] => [...options, ...GLOBAL_OPTIONS];

/** An option as it may be typed. */
function words({ short, name }: OptionHelp): string[] {
  return short === undefined ? [`--${name}`] : [`-${short}`, `--${name}`];
}

/** A name that functions of shells may have. */
const functionName = (program: string) => `_${program.replace(/\W/g, '_')}`;

function bashScript(program: string, commands: readonly CommandHelp[]): string {
  const cases = commands.map((command) => {
    const options = optionsOf(command);
    const values = options.flatMap((option) => {
      const choices = choicesOf(option);
      if (choices.length === 0) return [];
      const patterns = words(option).join('|');
      return [`        ${patterns}) COMPREPLY=($(compgen -W '${choices.join(' ')}' -- "$cur")) ;;`];
    });
    const all = options.flatMap(words).join(' ');
    return `    ${command.name})
      case "$prev" in
${[...values, `        *) _options='${all}' ;;`].join('\n')}
      esac ;;`;
  });
  const names = [...commands.map(({ name }) => name), 'completion', '--help', '--version'];
  const fn = functionName(program);
  return `# Completion of ${program} for bash: source <(${program} completion bash)
${fn}() {
  local cur="\${COMP_WORDS[COMP_CWORD]}" prev="\${COMP_WORDS[COMP_CWORD-1]}" _options=
  COMPREPLY=()
  # --name=value comes as three words.
  if [[ $cur == = ]]; then cur=; fi
  if [[ $prev == = ]]; then prev="\${COMP_WORDS[COMP_CWORD-2]}"; fi
  if [[ $COMP_CWORD -eq 1 ]]; then
    COMPREPLY=($(compgen -W '${names.join(' ')}' -- "$cur"))
    return
  fi
  case "\${COMP_WORDS[1]}" in
${cases.join('\n')}
    completion) COMPREPLY=($(compgen -W '${SHELLS.join(' ')}' -- "$cur")) ;;
  esac
  if [[ $cur == -* && -n $_options ]]; then
    COMPREPLY=($(compgen -W "$_options" -- "$cur"))
  fi
}
complete -o default -F ${fn} ${program}
`;
}

const quoted = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;

function zshScript(program: string, commands: readonly CommandHelp[]): string {
  const plain = (text: string) => text.replace(/[[\]:\\]/g, '\\$&');
  const spec = (option: OptionHelp) => {
    const choices = choicesOf(option);
    const action = choices.length > 0 ? `(${choices.join(' ')})` : '_files';
    const value = option.value === undefined ? '' : `:${option.name}:${action}`;
    const about = `[${plain(option.text)}]${value}`;
    const long = `--${option.name}${option.value === undefined ? '' : '='}`;
    const short = option.short === undefined ? [] : [quoted(`*-${option.short}${about}`)];
    return [...short, quoted(`*${long}${about}`)];
  };
  const cases = commands.map(
    (command) => `    ${command.name}) _arguments -s \\
      ${[...optionsOf(command).flatMap(spec), "'*:file:_files'"].join(' \\\n      ')} ;;`,
  );
  const list = commands.map(({ name, summary }) => `    ${quoted(`${name}:${plain(summary)}`)}`);
  const fn = functionName(program);
  return `#compdef ${program}
# Completion of ${program} for zsh: source <(${program} completion zsh)
${fn}() {
  local -a commands=(
${list.join('\n')}
    'completion:print what a shell needs'
  )
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  local command=$words[2]
  shift words
  (( CURRENT-- ))
  case $command in
${cases.join('\n')}
    completion) compadd ${SHELLS.join(' ')} ;;
  esac
}
compdef ${fn} ${program}
`;
}

function fishScript(program: string, commands: readonly CommandHelp[]): string {
  const start = `complete -c ${program}`;
  const lines = [
    `# Completion of ${program} for fish: ${program} completion fish | source`,
    ...commands.map(
      ({ name, summary }) =>
        `${start} -n __fish_use_subcommand -f -a ${name} -d ${quoted(summary)}`,
    ),
    `${start} -n __fish_use_subcommand -f -a completion -d ${quoted('print what a shell needs')}`,
    `${start} -n '__fish_seen_subcommand_from completion' -f -a ${quoted(SHELLS.join(' '))}`,
  ];
  for (const command of commands) {
    for (const option of optionsOf(command)) {
      const { short, name, value, text } = option;
      const choices = choicesOf(option);
      const letter = short === undefined ? '' : ` -s ${short}`;
      const takes = value === undefined ? '' : ' -r';
      const list = choices.length > 0 ? ` -f -a ${quoted(choices.join(' '))}` : '';
      const where = `-n '__fish_seen_subcommand_from ${command.name}'`;
      lines.push(`${start} ${where}${letter} -l ${name}${takes}${list} -d ${quoted(text)}`);
    }
  }
  return `${lines.join('\n')}\n`;
}
