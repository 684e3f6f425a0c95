"""`make setup`, with stub interpreters: which Python and which torch it takes, and what it says."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

# An interpreter of any version that lacks some modules, and whose pip only writes down what it is
# asked for; an environment that it makes holds a copy of it.
STUB = """#!{bash}
export VERSION={version} LACKS="{lacks}"
case "$1 $2" in
    "-c "*)
        exec {python} -S - "$2" <<'END'
import os, sys, types
minor = int(os.environ["VERSION"].split(".")[1])
sys.version_info = (3, minor, 0)
sys.base_prefix = "/usr/lib/python" + os.environ["VERSION"]
for name in ("cv2", "detectron2"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["cv2"].__version__ = "5.0.0"
for name in os.environ["LACKS"].split():
    sys.modules[name] = None
exec(sys.argv[1])
END
        ;;
    "-m venv")
        for folder; do :; done
        echo "venv ${{*:3}}" >> calls.txt
        mkdir -p "$folder/bin"
        cp "$0" "$folder/bin/python"
        case "$*" in
            *--system-site-packages*) echo 'include-system-site-packages = true' ;;
            *) echo 'include-system-site-packages = false' ;;
        esac > "$folder/pyvenv.cfg"
        ;;
    "--version ") echo "Python $VERSION.0" ;;
    *)
        echo "${{*:2}}" >> calls.txt
        case "$*" in *{fails}*) exit 1 ;; esac
        ;;
esac
"""


class Machine:
    """A checkout with the script and the stubs that are on the path of this machine."""

    def __init__(self, folder):
        self.folder = folder
        self.path = folder / "bin"
        (folder / "tools").mkdir()
        self.path.mkdir()
        for name in ("tools/setup_environment.sh", "constraints.txt", "Makefile"):
            shutil.copy(REPOSITORY / name, folder / name)
        for name in ("bash", "cat", "cp", "dirname", "grep", "make", "mkdir", "paste"):
            (self.path / name).symlink_to(shutil.which(name))

    def add_python(self, name, version, *, lacks="detectron2", fails="(nothing)"):
        stub = self.path / name
        text = STUB.format(
            bash=shutil.which("bash"),
            python=sys.executable,
            version=version,
            lacks=lacks,
            fails=f"'{fails}'",
        )
        stub.write_text(text)
        stub.chmod(0o755)

    def set_up(self, *arguments, torch=""):
        return subprocess.run(
            [shutil.which("bash"), self.folder / "tools/setup_environment.sh", *arguments],
            env={"PATH": str(self.path), "TORCH": torch},
            capture_output=True,
            text=True,
        )

    def calls(self):
        return (self.folder / "calls.txt").read_text().splitlines()

    def make_setup(self, *arguments):
        """Whether `make setup` had anything to do."""
        (self.folder / "calls.txt").write_text("")
        subprocess.run(
            [self.path / "make", "--directory", self.folder, "setup", *arguments],
            env={"PATH": str(self.path)},
            check=True,
            capture_output=True,
        )
        return bool(self.calls())


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_newest_python_is_taken(machine):
    for minor in (10, 13, 14, 15):
        machine.add_python(f"python3.{minor}", f"3.{minor}")
    machine.add_python("python3", "3.11")
    result = machine.set_up()
    assert result.returncode == 0, result.stderr
    assert "Making .venv with python3.14 (Python 3.14.0)." in result.stdout
    assert machine.calls() == [
        "venv --clear .venv",
        "pip install --prefer-binary --constraint constraints.txt --editable .[dev]",
        "steatosis_d2.install_detectron2",
    ]


def test_python_that_is_named_is_taken(machine):
    machine.add_python("python3.14", "3.14")
    machine.add_python("python3.12", "3.12")
    assert "with python3.12" in machine.set_up("python3.12").stdout


def test_python_that_has_detectron2_is_taken_and_its_torch_kept(machine):
    machine.add_python("python3.14", "3.14")
    machine.add_python("python3", "3.11", lacks="")
    result = machine.set_up(torch="cpu")
    assert "with python3 (" in result.stdout
    assert "Detectron2 is there already and is kept" in result.stdout
    assert machine.calls()[:2] == [
        "venv --clear --system-site-packages .venv",
        "pip install --prefer-binary --editable .[dev]",
    ]


def test_environment_that_is_there_is_kept(machine):
    """Another 6 GB, only since a newer Python has come, would be a bad surprise."""
    machine.add_python("python3.12", "3.12")
    machine.set_up()
    machine.add_python("python3.14", "3.14")
    (machine.folder / "calls.txt").unlink()
    assert machine.set_up().returncode == 0
    assert not any(call.startswith("venv") for call in machine.calls())
    assert machine.set_up("python3.12").returncode == 0
    assert not any(call.startswith("venv") for call in machine.calls())
    machine.set_up("python3.14")
    assert "venv --clear .venv" in machine.calls()


def test_make_does_it_again_for_another_choice_only(machine):
    for name in ("setup.py", "steatosis_d2/install_detectron2.py"):
        (machine.folder / name).parent.mkdir(exist_ok=True)
        (machine.folder / name).touch()
    machine.add_python("python3.12", "3.12")
    done = [
        machine.make_setup(*arguments)
        for arguments in ([], [], ["TORCH=cpu"], ["TORCH=cpu"], [], ["PYTHON=python3.12"])
    ]
    assert done == [True, False, True, False, False, True]


@pytest.mark.parametrize("lacks", ["ensurepip", "venv"])
def test_package_with_the_venv_module_is_named(machine, lacks):
    machine.add_python("python3", "3.13", lacks=f"detectron2 {lacks}")
    result = machine.set_up()
    assert result.returncode == 1
    assert result.stderr == (
        "error: python3 cannot make virtual environments. Install its venv module "
        "(Debian, Ubuntu: apt-get install python3.13-venv).\n"
    )


def test_python_without_venv_module_is_passed_over(machine):
    machine.add_python("python3.14", "3.14", lacks="detectron2 ensurepip")
    machine.add_python("python3.11", "3.11")
    assert "with python3.11" in machine.set_up().stdout


def test_unsuitable_python_is_an_error_that_says_what_is_needed(machine):
    machine.add_python("old", "3.9")
    result = machine.set_up("old")
    assert result.returncode == 1
    assert "no Python 3.10 to 3.14 found (tried: old)" in result.stderr
    assert "make setup PYTHON=" in result.stderr


def test_machine_without_python_is_told_what_to_install(machine):
    result = machine.set_up()
    assert result.returncode == 1
    assert "apt-get install python3-venv" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("torch", "index"),
    [
        ("cpu", "https://download.pytorch.org/whl/cpu"),
        ("cu126", "https://download.pytorch.org/whl/cu126"),
        ("https://mirror.example/cpu", "https://mirror.example/cpu"),
    ],
)
def test_torch_from_another_index(machine, torch, index):
    machine.add_python("python3.12", "3.12")
    machine.set_up()
    (machine.folder / "calls.txt").unlink()
    assert machine.set_up(torch=torch).returncode == 0
    assert machine.calls() == [
        "venv --clear .venv",  # the torch that was there fits, too, and would stay
        f"pip install --prefer-binary --no-deps --index-url {index} "
        "--constraint constraints.txt torch torchvision",
        "pip install --prefer-binary --constraint constraints.txt --editable .[dev]",
        "steatosis_d2.install_detectron2",
    ]


def test_index_without_torch_is_one_clear_line(machine):
    machine.add_python("python3.12", "3.12", fails="--index-url")
    result = machine.set_up(torch="cpu")
    assert result.returncode == 1
    versions = " ".join(
        line for line in (REPOSITORY / "constraints.txt").read_text().splitlines() if "==" in line
    )
    assert result.stderr == (
        "error: TORCH=cpu: https://download.pytorch.org/whl/cpu cannot be reached, or has no "
        f"{versions} for Python 3.12 (pip's reason is above). "
        "Without TORCH the build on PyPI is taken.\n"
    )


def test_failing_installation_is_told(machine):
    machine.add_python("python3.14", "3.14", fails="--editable")
    result = machine.set_up()
    assert result.returncode == 1
    assert "not everything could be installed for Python 3.14" in result.stderr


def test_opencv_that_cannot_be_loaded_is_told(machine):
    """What Detectron2's own message would be: libGL.so.1 is missing, in its import of cv2."""
    machine.add_python("python3.14", "3.14", lacks="detectron2 cv2")
    result = machine.set_up()
    assert result.returncode == 1
    assert "OpenCV cannot be loaded" in result.stderr
