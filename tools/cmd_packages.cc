#include "tools/completeness.h"
#include "tools/packages_report.h"
#include "tools/verbs.h"

namespace mirage {

Action DeclarePackages(Options& options) {
  auto name = std::make_shared<std::string>();
  options.Positional("VERSION", *name, "a version", true);
  return [name](Session& session) -> Result<int> {
    ASSIGN_OR_RETURN(const auto library, session.Open());
    const auto snapshot = library->snapshot();
    ASSIGN_OR_RETURN(const Version version, ResolveVersion(*snapshot, *name));
    WarnIfIncomplete(*name, version.manifest);
    ASSIGN_OR_RETURN(const auto packages, ReadPackages(*snapshot, version, *name));
    for (const Package& package : packages) {
      if (session.json) {
        Json json;
        AddText(json, "name", package.name);
        AddText(json, "version", package.version);
        AddText(json, "arch", package.arch);
        session.out->Object(json);
      } else {
        session.out->Line(session.out->Fit(fmt::format("{} {} {}", package.name, package.version, package.arch)));
      }
    }
    return kExitDone;
  };
}

}  // namespace mirage
