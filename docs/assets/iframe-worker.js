// Browsers start no worker for a page that was opened from a folder. The search needs one: this runs it in a hidden frame.
if (location.protocol === "file:") {
  window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.append(frame)
      const { contentDocument, contentWindow } = frame
      contentDocument.open()
      contentDocument.write("<!doctype html><title>search</title>")
      contentDocument.close()
      const load = (source) =>
        new Promise((resolve, reject) => {
          const script = contentDocument.createElement("script")
          script.src = source
          script.onload = resolve
          script.onerror = reject
          contentDocument.head.append(script)
        })
      contentWindow.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }))
      contentWindow.importScripts = async (...sources) => {
        for (const source of sources) await load(source)
      }
      this.frame = frame
      this.ready = load(new URL(url, location.href).href)
    }

    async postMessage(data) {
      await this.ready
      const { contentWindow } = this.frame
      contentWindow.dispatchEvent(new contentWindow.MessageEvent("message", { data }))
    }

    terminate() {
      this.frame.remove()
    }
  }
  window.Worker = window.IFrameWorker
}
