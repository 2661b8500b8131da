// mirage-disk-reader: parses an untrusted disk image for the importer, in a sandbox, and speaks the reader protocol.
// Not for use by hand. Standard input is the image, opened read-only by the parent; standard output the pipe.
//
//   mirage-disk-reader survey SIZE
//   mirage-disk-reader walk TYPE OFFSET SIZE [HIDDEN-DIRECTORY...]      TYPE: as the survey says it
//   mirage-disk-reader rpm SIZE      the image is an rpm database
//   mirage-disk-reader look TYPE OFFSET SIZE LIMIT [lPATH | fPATH]...     l: what it is; f: links followed, its bytes
#include <unistd.h>

#include <charconv>
#include <new>

#include "indexer/disk_filesystem.h"
#include "indexer/disk_survey.h"
#include "indexer/reader_sandbox.h"
#include "indexer/rpm_sqlite.h"

namespace mirage {
namespace {

Result<uint64_t> Number(const std::vector<std::string>& arguments, size_t index) {
  uint64_t value = 0;
  if (index < arguments.size()) {
    const std::string& text = arguments[index];
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error == std::errc() && end == text.data() + text.size()) return value;
  }
  return Fail(EINVAL, "the disk reader was called wrongly");
}

Status RunJob(const std::vector<std::string>& arguments, ReaderOutput& output) {
  const std::string job = arguments.empty() ? "" : arguments[0];
  if (job == "survey") {
    ASSIGN_OR_RETURN(const uint64_t size, Number(arguments, 1));
    return SurveyDisk(DiskWindow(STDIN_FILENO, 0, size), output);
  }
  if (job == "rpm") {
    ASSIGN_OR_RETURN(const uint64_t size, Number(arguments, 1));
    return SendRpmHeaders(DiskWindow(STDIN_FILENO, 0, size), output);
  }
  ASSIGN_OR_RETURN(const uint64_t offset, Number(arguments, 2));
  ASSIGN_OR_RETURN(const uint64_t size, Number(arguments, 3));
  const DiskWindow window(STDIN_FILENO, offset, size);
  ASSIGN_OR_RETURN(const auto filesystem, DiskFilesystem::Open(arguments[1], window));
  if (job == "walk") return filesystem->Walk({arguments.begin() + 4, arguments.end()}, output);
  ASSIGN_OR_RETURN(const uint64_t limit, Number(arguments, 4));
  for (size_t i = 5; i < arguments.size(); ++i) {
    TRY(filesystem->LookUp(arguments[i].substr(1), arguments[i].starts_with('f'), limit, output));
  }
  return {};
}

int Main(const std::vector<std::string>& arguments) {
  ReaderOutput output(STDOUT_FILENO);
  const auto end = [&](Status status) {
    if (!status) {
      const ProblemRecord problem{status.error().code, status.error().message};
      status = output.Send(RecordKind::kProblem, Encode(problem));
    } else {
      status = output.Send(RecordKind::kDone, {});
    }
    if (status) status = output.Flush();
    return status ? 0 : 1;
  };
  try {
    if (!arguments.empty() && arguments[0] == "rpm") PrepareSqlite();
    Status status = EnterSandbox();
    if (status) status = RunJob(arguments, output);
    return end(std::move(status));
  } catch (const std::bad_alloc&) {
    return end(Fail(ENOMEM, "the filesystem takes more memory to read than is allowed"));
  }
}

}  // namespace
}  // namespace mirage

// _exit: what runs at a normal exit makes calls that the sandbox does not allow.
int main(int argc, char** argv) { _exit(mirage::Main({argv + std::min(argc, 1), argv + argc})); }
