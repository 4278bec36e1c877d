"""What is printed before Snakemake's logger plugin starts."""

from snakemake_logger_plugin_moebench import __main__ as quiet


def test_snakemakes_line_about_the_profile_is_not_shown_and_others_are(capsys):
    quiet.said("Using profile profiles/local for setting default command line arguments.")
    quiet.said("snakemake: error: unrecognized arguments: --bad")
    assert capsys.readouterr().out == "snakemake: error: unrecognized arguments: --bad\n"
