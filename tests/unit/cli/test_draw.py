from pyrafuse.cli.draw import find_graph
from pyrafuse.cli.main import main
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.reports.graphs import list_nodes

INPUTS = PyramidSpec((256, 512, 1024), (8, 16, 32))


def test_a_picture(tmp_path, capsys):
    path = tmp_path / "nas.svg"
    assert main(["draw", "nas_fpn", "-o", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}\n"
    assert "<svg" in path.read_text()


def test_a_text_that_can_be_drawn(tmp_path):
    text, picture = tmp_path / "mine.yaml", tmp_path / "mine.png"
    assert main(["draw", "bifpn", "-o", str(text), "--strides", "4,8"]) == 0
    assert "T4: [C4, T5]" in text.read_text()
    assert main(["draw", str(text), "--output", str(picture), "--strides", "4,8"]) == 0
    assert picture.read_bytes()[:4] == b"\x89PNG"


def test_one_time_of_a_stack_is_drawn():
    nodes = {node.name: node for node in list_nodes(find_graph("nas_fpn", INPUTS), INPUTS)}
    assert len(nodes) == 3 + 7 + 9
    assert (nodes["gp_64"].level, nodes["gp_64"].inputs) == (4, ("P6", "P4"))
    assert nodes["gp_64"].operation == "global_attention, 3x3"
    assert nodes["P6"].operation == "max_pool_floor"
    assert [name for name, node in nodes.items() if node.is_output] == ["out_3", "out_4", "out_5", "out_7", "out_6"]


def test_complaints(capsys):
    for argv, message in (
        (["draw"], "no neck was given: pyrafuse draw NECK -o FILE"),
        (["draw", "nas_fpnn"], "did you mean 'nas_fpn'"),
        (["draw", "yolo_fpn"], "yolo_fpn is not written as a graph; choose from asff, afpn, bifpn, "),
        (["draw", "fpn", "--channels", "1,2"], "--channels, --strides: a pyramid needs one stride a level"),
        (
            ["draw", "fpn", "--channels", "-4,0,8"],
            "--channels, --strides: channels (-4, 0, 8) and strides (8, 16, 32) must be",
        ),
        (["draw", "fpn", "--channels", "4,8,a"], "--channels: "),
        (["draw", "nas_fpn", "--strides", "1,2,4,8,16,32"], "found for 5 levels"),
    ):
        assert main(argv) == 2
        assert message in capsys.readouterr().err
