// One Complete from Node: node complete.js ADDRESS PROTO_FOLDER… ; prints the answer as JSON.
const crypto = require("crypto");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const [address, ...includeDirs] = process.argv.slice(2);
const definition = loader.loadSync("farthing/orchestrator/v1/orchestrator.proto", { includeDirs, longs: String, enums: String });
const { OrchestratorService } = grpc.loadPackageDefinition(definition).farthing.orchestrator.v1;
const client = new OrchestratorService(address, grpc.credentials.createInsecure());
const request = {
  requestId: crypto.randomUUID(),
  scope: "organizations/acme",
  messages: [{ role: "user", content: "How do I reset my password?" }],
};
client.Complete(request, { deadline: Date.now() + 30000 }, (error, response) => {
  if (error) {
    console.error(error.message);
    process.exit(1);
  }
  console.log(JSON.stringify(response));
  client.close();
});
