// Each verb of the program, one a file (cmd_<verb>.cc): declares its options, gives what runs it.
#pragma once

#include "tools/command.h"

namespace mirage {

Action DeclareInit(Options& options);
Action DeclareImport(Options& options);
Action DeclareLog(Options& options);
Action DeclareShow(Options& options);
Action DeclarePackages(Options& options);
Action DeclareFind(Options& options);
Action DeclareDoctor(Options& options);
Action DeclareLs(Options& options);
Action DeclareCat(Options& options);
Action DeclareStat(Options& options);
Action DeclareDiff(Options& options);
Action DeclareBranch(Options& options);
Action DeclareTag(Options& options);
Action DeclareMount(Options& options);
Action DeclareMounts(Options& options);
Action DeclareUmount(Options& options);
Action DeclareOverlay(Options& options);
Action DeclareGc(Options& options);
Action DeclareEnter(Options& options);
Action DeclareFsck(Options& options);
Action DeclareStats(Options& options);

}  // namespace mirage
