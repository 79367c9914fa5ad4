# SPDX-License-Identifier: Apache-2.0
"""Checks the commands that the pages show, and runs those that are marked so."""

import json
import re
import shlex
import subprocess

# The programs of other projects that the pages show. A name that is missing here is a typing
# mistake, or a program to add.
PROGRAMS = set("""apt apt-get bash c++ cat ccache chmod cmake cp cpack ctest curl dd debootstrap
    diff docker docker-registry dpkg dpkg-deb du find g++ git grep gzip head htpasswd jq ls man
    mkdir mkfs.ext4 mktemp mount msb mv nproc openssl pkg-config podman python3 qemu-img qemu-nbd
    qemu-system-x86_64 rm rsync scp sed sha256sum skopeo sleep sort ssh sudo sync tail tar tee
    timeout truncate umount virsh wc wget xargs zstd""".split())
WORDS = set("""! . : [ [[ break case cd continue do done echo elif else env eval exec exit export
    false fi for function if in kill local printf pwd read return set shift source test then time
    trap true type ulimit umask unset until wait while { }""".split())
PREFIXES = {"!", "do", "elif", "else", "env", "exec", "if", "sudo", "then", "time", "timeout",
            "until", "while", "{"}
SEPARATORS = set(";|&()\n")


def commands_of(block):
    """Returns the text of a block as a script. In a console block, "$ " begins a command."""
    if block.language != "console":
        return block.text
    return "".join("\n".join(command) + "\n" for command, _ in transcript(block))


def transcript(block):
    """Returns the commands of a console block, each with the output that the page shows."""
    steps = []
    continued = False
    for line in block.lines:
        if continued:
            steps[-1][0].append(line.removeprefix("> "))
        elif line.startswith("$ "):
            steps.append(([line[2:]], []))
        elif steps:
            steps[-1][1].append(line)
        else:
            raise block.error("a console block begins with a command: '$ COMMAND'")
        continued = (continued or line.startswith("$ ")) and line.endswith("\\")
    return steps


def simple_commands(script):
    """Returns the words of each command in a script, as far as its syntax is plain."""
    script = re.sub(r"<<-?\s*['\"]?(\w+)['\"]?(.*?)\n.*?\n\1$", r"\2", script, flags=re.S | re.M)
    script = re.sub(r"\\\n", " ", script)
    script = re.sub(r"(^|\s)#(\s.*)?$", r"\1", script, flags=re.M)
    lexer = shlex.shlex(script, posix=True, punctuation_chars="".join(SEPARATORS))
    lexer.whitespace = " \t\r"
    lexer.wordchars += "!%+,:@[]{}$^"
    lexer.commenters = ""
    words = []
    for token in lexer:
        if token and set(token) <= SEPARATORS:
            if words:
                yield words
            words = []
        else:
            words.append(token)
    if words:
        yield words


class Commands:
    """What the project has: programs, presets, options."""

    def __init__(self, root):
        self.root = root
        presets = json.loads((root / "CMakePresets.json").read_text(encoding="utf-8"))
        self.presets = {preset["name"] for preset in presets["configurePresets"]}
        lists = [root / "CMakeLists.txt", *root.glob("cmake/*.cmake")]
        for directory in ("examples", "tests", "tools"):
            lists += root.glob(f"{directory}/**/CMakeLists.txt")
        self.cmake = "\n".join(file.read_text(encoding="utf-8") for file in lists)
        self.functions = set(re.findall(r"^(\w+)\(\)", (root / "tests/packages.sh").read_text(
            encoding="utf-8"), re.M))

    def is_target(self, name):
        return re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w.-])", self.cmake) is not None

    def check(self, block, words):
        """Raises an error if a command, or an option of a program of the project, does not exist.
        """
        words = list(words)
        while words and (words[0] in PREFIXES or re.match(r"\w+\+?=", words[0])):
            words.pop(0)
        if not words:
            return
        program, arguments = words[0], words[1:]
        sources = "".join(file.read_text(encoding="utf-8")
                          for file in self.sources(block, program))
        for word in arguments if sources else []:
            option = re.match(r"--[\w-]+", word)
            if not option or option[0].startswith("--gtest_"):
                continue
            if not re.search(rf"(?<![\w-]){option[0]}(?![\w-])", sources):
                raise block.error(f"'{program}' has no option '{option[0]}'")
        if program.endswith("msb-snapshot"):
            self.check_subcommand(block, arguments, sources)
        if program in ("cmake", "ctest"):
            self.check_cmake(block, arguments)

    def sources(self, block, program):
        """Returns the files that define the options of a program of this project."""
        name = program.rsplit("/", 1)[-1]
        built = re.match(r"(?:\./)?build/([^/]+)/", program)
        if built and built[1] not in self.presets | {"examples", "tests", "tools"}:
            raise block.error(f"'{program}': there is no preset '{built[1]}', so no such directory")
        if "/" in program and not built:
            file = self.root / program
            if program[0] not in "/~$" and not file.is_file():
                raise block.error(f"'{program}' is not a file of the project")
            return [file] if file.is_file() else []
        if not built and (program in PROGRAMS or program in WORDS or program in self.functions
                          or program.startswith("$") or f"{program}()" in block.text):
            return []
        if not self.is_target(name):
            raise block.error(
                f"there is no program '{program}'. If this is not a typing mistake, add it to "
                "PROGRAMS in tests/docs/shell_blocks.py. If the block is not a shell script, fence "
                "it and name its language, or mark it <!-- test: none, because REASON -->")
        return [file for directory in ("examples", f"tools/{name}", f"tests/{name}")
                for file in (self.root / directory).glob("*.cc")]

    def check_subcommand(self, block, arguments, sources):
        words = iter(arguments)
        for word in words:
            if word in ("--home", "--backend"):
                next(words, None)
            elif not word.startswith("-"):
                if f'"{word}"' not in sources:
                    raise block.error(f"msb-snapshot has no command '{word}'")
                return

    def check_cmake(self, block, arguments):
        for word, following in zip(arguments, arguments[1:] + [""]):
            variable = re.match(r"-D((?:MSB|BLAKE3)_\w+)", word)
            if variable and not re.search(rf"\b{variable[1]}\b", self.cmake):
                raise block.error(f"CMake has no option '{variable[1]}' of this project")
            option, _, value = word.partition("=")
            value = value or following
            if option == "--preset" and value not in self.presets and value.isidentifier():
                raise block.error(f"there is no preset '{value}' in CMakePresets.json")
            if option == "--target" and not self.is_target(value) and value not in ("install",
                                                                                    "package"):
                raise block.error(f"there is no target '{value}' in the CMakeLists.txt files")


def check(root, block):
    """Raises an error if a block is not valid shell, or shows what the project does not have."""
    script = commands_of(block)
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise block.error(f"bash cannot read this block: {done.stderr}If it is not a shell script, "
                          "fence it and name its language, or mark it "
                          "<!-- test: none, because REASON -->")
    commands = Commands(root)
    try:
        found = list(simple_commands(script))
    except ValueError as error:
        raise block.error(f"the test cannot read this block ({error}); use plainer quotes")
    for words in found:
        commands.check(block, words)


def run(place, block, differs):
    """Runs a block. Returns its output, after comparing what a console block shows."""
    hidden = block.marker.hidden
    if block.language == "sh":
        status, output = place.run(block.page, ["bash", "-euo", "pipefail", "-c",
                                                "\n".join([*hidden, block.text])])
        if status != 0:
            raise block.error(f"the commands exit with {status}:\n{output}")
        return output
    script, steps = "\n".join(hidden), transcript(block)
    for command, _ in steps:
        script += "\n" + "\n".join(command) + "\nprintf '\\001%s\\001' $?"
    _, output = place.run(block.page, ["bash", "-c", script])
    parts = output.split("\1")
    for step, (command, expected) in enumerate(steps):
        found = parts[2 * step] if 2 * step < len(parts) else ""
        status = parts[2 * step + 1] if 2 * step + 1 < len(parts) else "an exit of the shell"
        difference = differs("\n".join(expected), found) if expected else None
        if difference:
            raise block.error(f"$ {command[0]}\n{difference}")
        if status != "0" and not expected:
            raise block.error(f"$ {command[0]}\nfails with {status}:\n{found}")
    return output
