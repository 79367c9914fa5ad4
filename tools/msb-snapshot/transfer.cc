// SPDX-License-Identifier: Apache-2.0
//
// export, import and flatten.

#include <fmt/format.h>

#include <cerrno>
#include <filesystem>
#include <memory>

#include "tools/msb-snapshot/commands.h"
#include "tools/msb-snapshot/document.h"
#include "tools/msb-snapshot/exit_code.h"
#include "tools/msb-snapshot/options.h"
#include "tools/msb-snapshot/snapshot_argument.h"
#include "tools/msb-snapshot/terminal.h"
#include "tools/msb-snapshot/text.h"

namespace msb::program {
namespace {

constexpr const char* kStandardStream = "-";

struct Transfer {
  std::string name = {};
  std::string path = {};
};

// Returns true if path stands for a standard stream, on which nothing else may be written then.
bool IsStandard(const std::string& path, Stream stream) {
  const bool output = stream == Stream::kOutput;
  const std::string number = output ? "1" : "0";
  return path == kStandardStream || path == (output ? "/dev/stdout" : "/dev/stdin") ||
         path == "/dev/fd/" + number || path == "/proc/self/fd/" + number;
}

void CheckStreams(const Session& session, const std::string& path, Stream stream) {
  if (!IsStandard(path, stream)) return;
  const bool output = stream == Stream::kOutput;
  if (IsTerminal(stream)) {
    throw CLI::ValidationError(
        output ? "an archive cannot be written to a terminal: redirect the output"
               : "an archive cannot be read from a terminal: redirect the input");
  }
  if (output && session.options.json) {
    throw CLI::ValidationError("--json", "standard output is used for the archive");
  }
}

int ExportToOutput(Session& session, const std::string& name,
                   const SnapshotExportOptions& options) {
  try {
    Snapshot::Export(session.context(), name, "/dev/stdout", options, session.client());
  } catch (const Error& e) {
    // The program that reads the archive reports why it ended.
    if (e.os_error() != EPIPE) throw;
    return kBrokenPipe;
  }
  return kSuccess;
}

int Export(Session& session, const Transfer& transfer, SnapshotExportOptions options) {
  CheckStreams(session, transfer.path, Stream::kOutput);
  options.since = CompleteDigest(session, options.since);
  const std::string snapshot = NameOrPath(session, transfer.name);
  if (IsStandard(transfer.path, Stream::kOutput)) {
    return ExportToOutput(session, snapshot, options);
  }
  const std::filesystem::path out = transfer.path;
  Snapshot::Export(session.context(), snapshot, out, options, session.client());
  std::error_code error;
  const bool regular = std::filesystem::is_regular_file(out, error);
  const std::uint64_t size = regular ? std::filesystem::file_size(out, error) : 0;
  Json document;
  document["name"] = transfer.name;
  document["archive"] = std::filesystem::absolute(out).native();
  document["archive_bytes"] = regular ? Json(size) : Json(nullptr);
  session.Print(
      {std::move(document),
       fmt::format("exported {} to {}{}\n", Printable(transfer.name), Printable(out.native()),
                   regular ? fmt::format(" ({})", HumanBytes(size)) : "")});
  return 0;
}

int Import(Session& session, const Transfer& transfer, const std::string& destination,
           const SnapshotImportOptions& options) {
  CheckStreams(session, transfer.path, Stream::kInput);
  const std::filesystem::path archive =
      transfer.path == kStandardStream ? "/dev/stdin" : transfer.path;
  const SnapshotHandle head =
      Snapshot::Import(session.context(), archive, destination, options, session.client());
  session.Print({ToJson(head), fmt::format("imported {} ({})\n", Printable(head.Path()),
                                           ShortDigest(head.Digest()))});
  return 0;
}

int Flatten(Session& session, const Transfer& transfer, DiskFormat format) {
  if (IsStandard(transfer.path, Stream::kOutput)) {
    throw CLI::ValidationError(
        kFile, "a disk is written to a file, with holes: give its path, or use export for a pipe");
  }
  Snapshot::Flatten(session.context(), NameOrPath(session, transfer.name), transfer.path,
                    {.format = format}, session.client());
  const std::filesystem::path path = std::filesystem::absolute(transfer.path);
  Json document;
  document["name"] = transfer.name;
  document["path"] = path.native();
  document["format"] = ToString(format);
  session.Print(
      {std::move(document),
       fmt::format("wrote the disk of {} to {} ({})\n", Printable(transfer.name),
                   Printable(path.native()), HumanBytes(std::filesystem::file_size(path)))});
  return 0;
}

void AddExport(CLI::App& app, Invocation& invocation) {
  Session& session = invocation.session;
  CLI::App* const command = AddCommand(app, invocation, "export", "Write a snapshot to an archive");
  command->alias("save");
  const auto transfer = std::make_shared<Transfer>();
  const auto options = std::make_shared<SnapshotExportOptions>();
  command->add_option(kSnapshot, transfer->name, "Name, digest or path of the snapshot")
      ->type_name("")
      ->required();
  command->add_option(kFile, transfer->path, "The archive to write; '-' is standard output")
      ->type_name("")
      ->required()
      ->check(NotEmpty());
  command->add_flag("--with-parents", options->with_parents,
                    "Include every snapshot that it descends from");
  command->add_flag("--with-image", options->with_image, "Include the image");
  command->add_flag("--plain-tar", options->plain_tar, "Do not compress the archive");
  command->add_flag(
      "--sparse", options->sparse,
      "Keep holes in snapshots of the manifest generation; releases before 0.6.7 cannot read them");
  command
      ->add_option(
          "--since", options->since,
          "Leave out this snapshot and all its ancestors, which the receiver must already have")
      ->type_name(kSnapshot)
      ->check(NotEmpty());
  AddNumberOption(*command, "--level", options->level, "Compression level, 1 to 19. Default: 3", 1)
      ->type_name("LEVEL");
  AddNumberOption(*command, "--threads", options->threads,
                  "Compression threads. Default: one per core", 0)
      ->type_name("COUNT");
  command->callback([&, transfer, options] {
    invocation.run = [&session, transfer, options] { return Export(session, *transfer, *options); };
  });
}

void AddImport(CLI::App& app, Invocation& invocation) {
  Session& session = invocation.session;
  CLI::App* const command =
      AddCommand(app, invocation, "import", "Read snapshots from an archive, after checking it");
  command->alias("load");
  const auto transfer = std::make_shared<Transfer>();
  const auto destination = std::make_shared<std::string>();
  const auto options = std::make_shared<SnapshotImportOptions>();
  command->add_option(kFile, transfer->path, "The archive to read; '-' is standard input")
      ->type_name("")
      ->required()
      ->check(NotEmpty());
  command->add_option("--name", options->name, "Name of the imported snapshot. Default: its digest")
      ->type_name("NAME")
      ->check(NotEmpty());
  command
      ->add_option("--dest", *destination,
                   "Directory to import into. Default: the snapshots directory")
      ->type_name(kDirectory)
      ->check(NotEmpty());
  command->callback([&, transfer, destination, options] {
    invocation.run = [&session, transfer, destination, options] {
      return Import(session, *transfer, *destination, *options);
    };
  });
}

void AddFlatten(CLI::App& app, Invocation& invocation) {
  Session& session = invocation.session;
  CLI::App* const command =
      AddCommand(app, invocation, "flatten", "Write the complete disk of a snapshot to one file");
  const auto transfer = std::make_shared<Transfer>();
  const auto format = std::make_shared<DiskFormat>(DiskFormat::kRaw);
  command->add_option(kSnapshot, transfer->name, "Name, digest or path of the snapshot")
      ->type_name("")
      ->required();
  command->add_option(kFile, transfer->path, "The file to write")
      ->type_name("")
      ->required()
      ->check(NotEmpty());
  AddFormatOption(*command, "--format", "Format of the file. Default: raw",
                  [format](DiskFormat given) { *format = given; });
  command->callback([&, transfer, format] {
    invocation.run = [&session, transfer, format] { return Flatten(session, *transfer, *format); };
  });
}

}  // namespace

void AddTransfer(CLI::App& app, Invocation& invocation) {
  AddExport(app, invocation);
  AddImport(app, invocation);
  AddFlatten(app, invocation);
}

}  // namespace msb::program
