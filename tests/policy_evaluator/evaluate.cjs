// Answers, line by line, whether a role that may do everything may do something under a session policy.
'use strict'
const readline = require('node:readline')
const { runSimulation } = require('@cloud-copilot/iam-simulate')

const everything = { Version: '2012-10-17', Statement: [{ Effect: 'Allow', Action: '*', Resource: '*' }] }

async function evaluate({ policy, account, action, resource, context, resourcePolicy }) {
  const simulation = {
    request: {
      principal: `arn:aws:sts::${account}:assumed-role/role/session`,
      action,
      resource: { resource, accountId: account },
      contextVariables: context
    },
    sessionPolicy: policy,
    identityPolicies: [{ name: 'role', policy: everything }],
    serviceControlPolicies: [],
    resourceControlPolicies: [],
    resourcePolicy
  }
  const answer = await runSimulation(simulation, { simulationMode: 'Strict' })
  if (answer.resultType !== 'single') return { error: answer.errors ?? answer.resultType }
  return { result: answer.overallResult, ignored: answer.result.ignoredContextKeys }
}

async function main() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const answers = []
    for (const question of JSON.parse(line)) answers.push(await evaluate(question))
    process.stdout.write(JSON.stringify(answers) + '\n')
  }
}

main()
