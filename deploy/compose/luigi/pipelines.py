"""Two small pipelines that do nothing but leave a file behind."""

import pathlib
import tempfile
import time

import luigi


class Step(luigi.Task):
    at = luigi.Parameter()

    def output(self):
        return luigi.LocalTarget(pathlib.Path(tempfile.gettempdir()) / f"{self.task_family}-{self.at}")

    def run(self):
        time.sleep(1)
        with self.output().open("w") as out:
            out.write("done\n")


class ExtractUsers(Step):
    pass


class LoadUsers(Step):
    def requires(self):
        return ExtractUsers(at=self.at)


class ExportInvoices(Step):
    pass
