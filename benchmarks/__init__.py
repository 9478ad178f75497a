"""Benchmarks: one script per question, each prints a table and writes JSON; none is part of the test run.

    python -m benchmarks                 all of them in turn, in their quick form, within ten minutes
    python -m benchmarks NAME...         some of them, in their quick form
    python -m benchmarks --full NAME...  in their full form
    python -m benchmarks --list          the question that each answers
    python -m benchmarks.NAME --help     one of them, with its own options

A script is any file here without a leading underscore that has

* a docstring whose first line is the question or the subject;
* ``main(arguments=None)``, or ``main()`` that reads ``sys.argv``. It raises or exits with a code other than 0
  where a bar is missed, after it has written its file;
* ``QUICK``, a list of arguments for the form that `python -m benchmarks` runs: at most about half a minute on
  two quiet cores. ``[]`` says that the defaults are quick. Without it the script runs as it is and is
  stopped at ``--limit`` seconds;
* ``LEFT_OUT``, a phrase: what the quick form leaves out, printed before the run and written to the files;
* one call or more of `_common.write(name, result)`, which adds the machine, the versions, the command and
  the form. What a quick form measures goes to ``results/quick/`` and says so, so that it never takes the
  place of a full measurement in ``results/``.

Figures are medians of five or more, with the compile time apart from the run time.
"""
