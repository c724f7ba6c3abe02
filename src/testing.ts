// `parley/testing`: what users' own tests of their teams are written with. standalone/build-package.ts packs it.
export {
  type ScriptedCall,
  type ScriptedModel,
  type SeenCall,
  startScriptedModel,
} from "./providers/scripted-model.ts";
