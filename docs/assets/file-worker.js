// Browsers start no worker for a page that was opened from disk, and the search needs one. There, its script runs in a
// hidden frame instead, which passes messages in both directions.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      document.body.append(this.frame)
      const inner = this.frame.contentWindow
      inner.postMessage = (data) => this.#answer(data)
      inner.importScripts = (...urls) =>
        urls.reduce((before, each) => before.then(() => load(inner.document, each)), Promise.resolve())
      this.ready = load(inner.document, url)
    }

    postMessage(data) {
      const event = () => new MessageEvent("message", { data: structuredClone(data) })
      this.ready.then(() => this.frame.contentWindow.dispatchEvent(event()))
    }

    terminate() {
      this.frame.remove()
    }

    #answer(data) {
      const event = new MessageEvent("message", { data })
      this.dispatchEvent(event)
      this.onmessage?.(event)
    }
  }

  const load = (page, url) =>
    new Promise((resolve, reject) => {
      const script = page.createElement("script")
      script.src = url
      script.onload = resolve
      script.onerror = reject
      page.body.append(script)
    })
}
